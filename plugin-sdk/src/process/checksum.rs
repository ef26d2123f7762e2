//! A pin on a plugin's executable: the bytes that are verified are the bytes that run.
//!
//! The file is opened once and copied into memory that nobody can write any more, hashed on the way, and the copy is
//! executed. Comparing first and then starting the path, as go-plugin does, leaves a moment in which the file can be
//! exchanged or rewritten. Who may write to the file is thus of no importance. Libraries that the plugin loads are not covered.
//!
//! Only Linux has such memory; elsewhere a pinned plugin is not started.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256, Sha512};
use thiserror::Error;

/// What is read at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// The digest that a plugin's executable has to have.
#[derive(Clone, PartialEq, Eq)]
pub struct Checksum(Digested);

#[derive(Clone, PartialEq, Eq)]
enum Digested {
    Sha256(Box<[u8; 32]>),
    Sha512(Box<[u8; 64]>),
}

/// Text that is no checksum. The operator has to mend the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ChecksumProblem {
    /// Nothing to compare with.
    #[error("the checksum is empty")]
    Empty,
    /// No algorithm, or one that is not known here.
    #[error("{0:?} is not an algorithm: use sha256 or sha512")]
    Algorithm(String),
    /// Not as many hexadecimal digits as the algorithm has.
    #[error("the checksum has to have {expected} hexadecimal digits, it has {found} characters")]
    Length {
        /// Digits of this algorithm.
        expected: usize,
        /// Characters that there are.
        found: usize,
    },
    /// Something else than hexadecimal digits.
    #[error("the checksum has a character that is no hexadecimal digit")]
    Digit,
}

/// Why an executable was not accepted. Nothing has been started.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ChecksumError {
    /// The file has other contents. Either it was tampered with, or the configuration is of another release.
    #[error("its checksum is {found}, it has to be {expected}")]
    Mismatch {
        /// What was configured.
        expected: Checksum,
        /// What the file has.
        found: Checksum,
    },
    /// A script: its interpreter would open the path again, and read what nobody has verified.
    #[error("it is a script, which cannot be pinned: its interpreter reads the file again")]
    Script,
    /// A runner starts it, and what that runs this host cannot know.
    #[error("a runner starts it, and this host cannot see what that runs: have the runner verify it")]
    Runner,
    /// It cannot be read.
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    /// There is no memory to copy it to. Always so outside of Linux, with [`io::ErrorKind::Unsupported`].
    #[error("it cannot be copied to memory")]
    Copy(#[source] io::Error),
}

impl Checksum {
    /// A SHA-256 digest.
    #[must_use]
    pub fn sha256(digest: [u8; 32]) -> Self {
        Self(Digested::Sha256(Box::new(digest)))
    }

    /// A SHA-512 digest.
    #[must_use]
    pub fn sha512(digest: [u8; 64]) -> Self {
        Self(Digested::Sha512(Box::new(digest)))
    }

    /// Reads `sha256:` or `sha512:` and hexadecimal digits, of either case.
    ///
    /// # Errors
    /// Anything else.
    pub fn parse(text: &str) -> Result<Self, ChecksumProblem> {
        let (algorithm, digits) = text.split_once(':').unwrap_or(("", text));
        if digits.is_empty() {
            return Err(ChecksumProblem::Empty);
        }
        match algorithm {
            "sha256" => from_hex(digits).map(Self::sha256),
            "sha512" => from_hex(digits).map(Self::sha512),
            other => Err(ChecksumProblem::Algorithm(other.to_owned())),
        }
    }

    /// Copies `program` to sealed memory, if it has this checksum. Blocks for as long as reading takes.
    pub(crate) fn verified_copy(&self, program: &Path) -> Result<File, ChecksumError> {
        let source = File::open(program).map_err(ChecksumError::Read)?;
        let (copy, found) = match self.0 {
            Digested::Sha256(_) => {
                let (copy, digest) = copy::<Sha256>(source)?;
                (copy, Self::sha256(digest.into()))
            }
            Digested::Sha512(_) => {
                let (copy, digest) = copy::<Sha512>(source)?;
                (copy, Self::sha512(digest.into()))
            }
        };
        if found != *self {
            return Err(ChecksumError::Mismatch { expected: self.clone(), found });
        }
        Ok(copy)
    }
}

fn from_hex<const BYTES: usize>(digits: &str) -> Result<[u8; BYTES], ChecksumProblem> {
    let found = digits.chars().count();
    if found != 2 * BYTES {
        return Err(ChecksumProblem::Length { expected: 2 * BYTES, found });
    }
    let mut bytes = [0; BYTES];
    let nibble = |digit: u8| char::from(digit).to_digit(16).and_then(|nibble| u8::try_from(nibble).ok());
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        let (high, low) = nibble(pair[0]).zip(nibble(pair[1])).ok_or(ChecksumProblem::Digit)?;
        *byte = high << 4 | low;
    }
    Ok(bytes)
}

fn copy<D: Digest>(mut source: File) -> Result<(File, sha2::digest::Output<D>), ChecksumError> {
    let mut memory = sealable::create().map_err(ChecksumError::Copy)?;
    let mut hasher = D::new();
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut first = true;
    loop {
        let length = match source.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(ChecksumError::Read(error)),
        };
        let chunk = &buffer[..length];
        if std::mem::take(&mut first) && chunk.starts_with(b"#!") {
            return Err(ChecksumError::Script);
        }
        hasher.update(chunk);
        memory.write_all(chunk).map_err(ChecksumError::Copy)?;
    }
    sealable::seal(&memory).map_err(ChecksumError::Copy)?;
    Ok((memory, hasher.finalize()))
}

/// Files in memory that can be made to stay as they are.
#[cfg(target_os = "linux")]
mod sealable {
    use std::fs::File;
    use std::io;

    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

    pub(super) fn create() -> io::Result<File> {
        Ok(memfd_create("plugin", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?.into())
    }

    pub(super) fn seal(memory: &File) -> io::Result<()> {
        let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
        Ok(fcntl_add_seals(memory, seals)?)
    }
}

/// There are none, or none that can be executed. To start the path after all would be no pin.
#[cfg(not(target_os = "linux"))]
mod sealable {
    use std::fs::File;
    use std::io;

    pub(super) fn create() -> io::Result<File> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn seal(_memory: &File) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// As [`parse`](Checksum::parse) reads it.
impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, digest) = match &self.0 {
            Digested::Sha256(digest) => ("sha256", digest.as_slice()),
            Digested::Sha512(digest) => ("sha512", digest.as_slice()),
        };
        write!(f, "{name}:")?;
        digest.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Seek;

    use super::*;

    /// Of "abc", from FIPS 180-4.
    const ABC: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn file(contents: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(contents).unwrap();
        file
    }

    #[test]
    fn text_is_read_and_written() {
        assert_eq!(Checksum::parse(ABC).unwrap().to_string(), ABC);
        assert_eq!(Checksum::parse(&ABC.to_uppercase().replace("SHA", "sha")).unwrap().to_string(), ABC);
        let long = format!("sha512:{}", "0f".repeat(64));
        assert_eq!(Checksum::parse(&long).unwrap().to_string(), long);
    }

    #[test]
    fn text_that_is_no_checksum_has_a_problem_of_its_own() {
        for (text, problem) in [
            ("", ChecksumProblem::Empty),
            ("sha256:", ChecksumProblem::Empty),
            ("abcd", ChecksumProblem::Algorithm(String::new())),
            ("md5:abcd", ChecksumProblem::Algorithm("md5".into())),
            ("sha256:abcd", ChecksumProblem::Length { expected: 64, found: 4 }),
            (&format!("sha256:{}", "x".repeat(64)), ChecksumProblem::Digit),
        ] {
            assert_eq!(Checksum::parse(text), Err(problem), "{text}");
        }
    }

    #[test]
    fn a_match_gives_a_copy_that_cannot_be_changed() {
        let source = file(b"abc");
        let checksum = Checksum::parse(ABC).unwrap();
        // The same checksum serves any number of starts: each has a hasher of its own.
        for _ in 0..2 {
            let mut copy = checksum.verified_copy(source.path()).unwrap();
            std::fs::write(source.path(), "abc").unwrap();
            assert!(copy.write_all(b"x").is_err());
            let mut contents = String::new();
            copy.rewind().unwrap();
            copy.read_to_string(&mut contents).unwrap();
            assert_eq!(contents, "abc");
        }
    }

    #[test]
    fn other_contents_a_script_and_a_missing_file_are_refused() {
        let checksum = Checksum::parse(ABC).unwrap();
        let refused = |file: &Path| checksum.verified_copy(file).unwrap_err();
        let ChecksumError::Mismatch { expected, found } = refused(file(b"abcd").path()) else {
            panic!("no mismatch")
        };
        assert!(expected == checksum && found != checksum);
        assert!(matches!(refused(file(b"#!/bin/sh\n").path()), ChecksumError::Script));
        assert!(matches!(refused(Path::new("/no/such/file")), ChecksumError::Read(_)));
    }
}
