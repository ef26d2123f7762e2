//! Why a file cannot be started, found out before starting it: the operating system's own error names the file only
//! ("No such file or directory" also where a script's interpreter is missing, "Exec format error" for whatever the kernel does not
//! know), and executes what there is of a program that was cut short.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::elf;

/// What is wrong with a file that was to be started. The operator has to mend the path or the file.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ProgramProblem {
    /// Nothing has this name.
    #[error("there is no such file")]
    Missing,
    /// A directory, a pipe, a device.
    #[error("it is {0}, not a file")]
    NotAFile(&'static str),
    /// Nobody may execute it, or not this user.
    #[error("it is not executable for this user (mode {mode:04o}, owner {owner}): chmod +x it")]
    NotExecutable {
        /// Permission bits.
        mode: u32,
        /// Numeric user id of the owner.
        owner: u32,
    },
    /// An empty file.
    #[error("it is empty")]
    Empty,
    /// Built for another machine.
    #[error("it is built for {found}, this machine is {host}")]
    Architecture {
        /// What the file is for.
        found: Machine,
        /// What this is.
        host: Machine,
    },
    /// A shared object, such as a Go `buildmode=plugin`.
    #[error("it is a shared object, not an executable: build it as a program of its own")]
    SharedObject,
    /// Neither an executable of this system nor a script.
    #[error("it is neither an executable nor a script: it begins with {begins:?}")]
    Format {
        /// The first bytes, escaped.
        begins: String,
    },
    /// A part of an executable: a copy that was broken off, or is still being made.
    #[error("it is cut short: it has {bytes} bytes, and by its own headers at least {least}")]
    CutShort {
        /// What there is.
        bytes: u64,
        /// What there would have to be.
        least: u64,
    },
    /// A script whose first line names a program that is not there.
    #[error("its interpreter {} does not exist", .0.to_string_lossy().escape_debug())]
    Interpreter(PathBuf),
    /// It may be executed, but not where it is.
    #[error(
        "it is executable (mode {mode:04o}), but its file system is mounted noexec, or a directory above it is closed"
    )]
    NoExec {
        /// Permission bits.
        mode: u32,
    },
    /// The system would not tell, or refused.
    #[error("it cannot be examined")]
    Io(#[source] io::Error),
}

/// An ELF machine number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine(u16);

/// ELF's `e_machine` for the architectures that Rust's tier 1 and 2 hosts have.
const MACHINES: [(u16, &str); 9] = [
    (3, "x86"),
    (8, "mips"),
    (20, "powerpc"),
    (21, "powerpc64"),
    (22, "s390x"),
    (40, "arm"),
    (62, "x86_64"),
    (183, "aarch64"),
    (243, "riscv64"),
];

impl Machine {
    fn host() -> Option<Self> {
        MACHINES.iter().find(|(_, name)| *name == std::env::consts::ARCH).map(|(number, _)| Self(*number))
    }

    /// 64-bit machines run programs of their 32-bit ancestors where the kernel is built for it.
    fn may_run(self, program: Self) -> bool {
        self == program || matches!((self.0, program.0), (62, 3) | (183, 40) | (21, 20))
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match MACHINES.iter().find(|(number, _)| *number == self.0) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "ELF machine {}", self.0),
        }
    }
}

/// Looks at the file without starting it. `Ok` is no promise that it starts.
pub(crate) fn examine(program: &Path) -> Result<(), ProgramProblem> {
    let metadata = std::fs::metadata(program).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => ProgramProblem::Missing,
        _ => ProgramProblem::Io(error),
    })?;
    if !metadata.is_file() {
        return Err(ProgramProblem::NotAFile(if metadata.is_dir() {
            "a directory"
        } else {
            "a special file"
        }));
    }
    let (mode, owner) = (metadata.mode() & 0o7777, metadata.uid());
    if rustix::fs::access(program, rustix::fs::Access::EXEC_OK).is_err() {
        return Err(if mode & 0o111 == 0o111 {
            ProgramProblem::NoExec { mode }
        } else {
            ProgramProblem::NotExecutable { mode, owner }
        });
    }
    match File::open(program) {
        Ok(file) => examine_contents(program, file),
        // A file may be executable and not readable.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        Err(error) => Err(ProgramProblem::Io(error)),
    }
}

fn examine_contents(program: &Path, file: File) -> Result<(), ProgramProblem> {
    // Long enough for an ELF header and, as in Linux, for the first line of a script.
    let mut start = Vec::with_capacity(256);
    (&file).take(256).read_to_end(&mut start).map_err(ProgramProblem::Io)?;
    match start.as_slice() {
        [] => Err(ProgramProblem::Empty),
        [0x7f, b'E', b'L', b'F', ..] => examine_elf(program, &start, &file),
        [b'#', b'!', line @ ..] => examine_script(line),
        _ if cfg!(target_os = "linux") && !foreign_formats_run() => {
            let begins = start.iter().take(16).copied().collect::<Vec<_>>().escape_ascii().to_string();
            Err(ProgramProblem::Format { begins })
        }
        _ => Ok(()),
    }
}

fn examine_elf(program: &Path, start: &[u8], file: &File) -> Result<(), ProgramProblem> {
    let (Some(order), Some(machine)) = (start.get(5), start.get(18..20)) else {
        return Err(ProgramProblem::Format { begins: start.escape_ascii().to_string() });
    };
    let machine = <[u8; 2]>::try_from(machine).unwrap_or_default();
    let found = Machine(if *order == 2 { u16::from_be_bytes(machine) } else { u16::from_le_bytes(machine) });
    match Machine::host() {
        Some(host) if !host.may_run(found) && !foreign_formats_run() => {
            Err(ProgramProblem::Architecture { found, host })
        }
        // Position independent executables have the same ELF type as shared objects; the name tells them apart.
        _ if program.extension().is_some_and(|extension| extension == "so") => {
            Err(ProgramProblem::SharedObject)
        }
        _ => examine_length(start, file),
    }
}

fn examine_length(start: &[u8], file: &File) -> Result<(), ProgramProblem> {
    let bytes = file.metadata().map_err(ProgramProblem::Io)?.len();
    let least = elf::least_bytes(start, file).map_err(ProgramProblem::Io)?;
    if bytes < least { Err(ProgramProblem::CutShort { bytes, least }) } else { Ok(()) }
}

fn examine_script(line: &[u8]) -> Result<(), ProgramProblem> {
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    // As the kernel does: a carriage return is a part of the name.
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let interpreter = line.split(is_blank).find(|word| !word.is_empty()).unwrap_or_default();
    let interpreter = Path::new(std::ffi::OsStr::from_bytes(interpreter));
    if interpreter.exists() { Ok(()) } else { Err(ProgramProblem::Interpreter(interpreter.to_path_buf())) }
}

/// Whether this Linux has interpreters for other formats (binfmt_misc), such as an emulator of another machine.
fn foreign_formats_run() -> bool {
    let Ok(entries) = std::fs::read_dir("/proc/sys/fs/binfmt_misc") else { return false };
    entries.flatten().any(|entry| entry.file_name() != "register" && entry.file_name() != "status")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn problem(name: &str, contents: &[u8], mode: u32) -> Option<String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, contents).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        examine(&path).err().map(|problem| problem.to_string())
    }

    fn elf(machine: u16) -> Vec<u8> {
        let mut header = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0];
        header.extend(machine.to_le_bytes());
        header.resize(64, 0);
        header
    }

    #[test]
    fn what_can_start_is_not_complained_about() {
        assert!(examine(&std::env::current_exe().unwrap()).is_ok());
        assert_eq!(problem("plugin", b"#!/bin/sh\nexit 0\n", 0o755), None);
        assert_eq!(problem("plugin", b"#! /usr/bin/env python3\n", 0o755), None);
    }

    #[test]
    fn a_part_of_a_program_is_cut_short() {
        let whole = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        for bytes in [20, 63, 64, 1_000, whole.len() / 2, whole.len() - 1] {
            let found = problem("plugin", &whole[..bytes], 0o755).unwrap_or_default();
            assert!(
                found.starts_with(&format!("it is cut short: it has {bytes} bytes, ")),
                "{bytes}: {found}"
            );
        }
        assert_eq!(problem("plugin", &whole, 0o755), None);
        // As self-extracting programs have it.
        assert_eq!(problem("plugin", &[&whole[..], b"more"].concat(), 0o755), None);
    }

    #[test]
    fn headers_that_are_rubbish_do_no_harm() {
        let mut header = elf(Machine::host().unwrap().0);
        assert_eq!(
            problem("plugin", &header, 0o755),
            None,
            "it has no segments, which is for the kernel to refuse"
        );
        for class in 0..=3 {
            for order in 0..=3 {
                header[4..6].copy_from_slice(&[class, order]);
                header[24..].fill(0xff);
                assert!(problem("plugin", &header, 0o755).is_some());
            }
        }
    }

    #[test]
    fn the_true_cause_is_named() {
        assert_eq!(examine(Path::new("/nowhere/x")).unwrap_err().to_string(), "there is no such file");
        assert_eq!(examine(Path::new("/tmp")).unwrap_err().to_string(), "it is a directory, not a file");
        let host = Machine::host().unwrap();
        let other = Machine(if host.0 == 183 { 62 } else { 183 });
        for (name, contents, mode, expected) in [
            ("plugin", b"#!/bin/sh\n".to_vec(), 0o644, "it is not executable".to_owned()),
            ("plugin", Vec::new(), 0o755, "it is empty".to_owned()),
            ("plugin", elf(other.0), 0o755, format!("it is built for {other}, this machine is {host}")),
            ("plugin.so", elf(host.0), 0o755, "it is a shared object".to_owned()),
            ("plugin", b"hello".to_vec(), 0o755, "it is neither an executable nor a script".to_owned()),
            ("plugin", b"#!/no/such/interpreter -x\n".to_vec(), 0o755, "its interpreter /no/such".to_owned()),
            ("plugin", b"#!/bin/sh\r\n".to_vec(), 0o755, r"its interpreter /bin/sh\r does".to_owned()),
        ] {
            // Any file with one x bit is executable for root: the mode without any is what root cannot execute either.
            let found = problem(name, &contents, mode).unwrap_or_default();
            assert!(found.starts_with(&expected), "{found} instead of {expected}");
        }
    }
}
