//! Executable files made for a test.
//!
//! Another program writes them: a descriptor that is open for writing here could be inherited by a process that another
//! test starts at the same moment, and no file can be executed while somebody has it open for writing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::run_with;

/// An executable file with this content.
pub fn executable(dir: &Path, name: &str, content: &[u8]) -> PathBuf {
    let draft = dir.join(format!("{name}.draft"));
    fs::write(&draft, content).expect("a file can be written");
    copy(&draft, &dir.join(name))
}

/// A plugin that is a shell script.
pub fn script(dir: &Path, name: &str, text: &str) -> PathBuf {
    executable(dir, name, format!("#!/bin/sh\n{text}\n").as_bytes())
}

/// A copy of a program.
pub fn copy(program: &Path, to: &Path) -> PathBuf {
    let output =
        run_with(Command::new("install").args(["-m", "755"]).args([program, to]).stdin(Stdio::null()));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    to.to_path_buf()
}

/// A program for another machine, and the name of that: the header of a 64-bit little-endian ELF executable, and no
/// program behind it.
pub fn foreign(dir: &Path) -> (PathBuf, &'static str) {
    let (machine, name) = if cfg!(target_arch = "aarch64") { (62_u16, "x86_64") } else { (183, "aarch64") };
    let mut header = [0; 64];
    header[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    header[16..18].copy_from_slice(&2u16.to_le_bytes());
    header[18..20].copy_from_slice(&machine.to_le_bytes());
    header[20..24].copy_from_slice(&1u32.to_le_bytes());
    header[52..54].copy_from_slice(&64u16.to_le_bytes());
    (executable(dir, "foreign", &header), name)
}
