//! A child that executes its program and nothing else.
//!
//! Where it forks, the standard library calls the C library's `execvp`, which hands a file that the kernel refuses to `/bin/sh`. A shell
//! that reads machine code does anything, and its complaint is not the cause. So the child makes the system call by itself, and its
//! error is the kernel's.

use std::ffi::OsStr;
use std::process::Command;

/// Has the child execute its program, with `arg0` as the first argument, or fail. To be called when the arguments and all of the
/// environment, which has to be a cleared one, are set; what is to be done before is done before.
///
/// Where children are not forked, nothing is done: there is no shell then.
pub(crate) fn without_shell(command: &mut Command, arg0: &OsStr) {
    #[cfg(target_os = "linux")]
    before_exec::execute(command, arg0);
    #[cfg(not(target_os = "linux"))]
    let _ = (command, arg0);
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "the standard library marks what runs between fork and exec as unsafe")]
mod before_exec {
    use std::ffi::{CString, NulError, OsStr, c_char};
    use std::io;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    pub(super) fn execute(command: &mut Command, arg0: &OsStr) {
        // With a zero byte in it, the standard library refuses the command.
        let Ok(image) = Image::of(command, arg0) else { return };
        // SAFETY: between fork and exec only what is async-signal-safe may be done. `become_it` makes one system call; it neither
        // allocates nor locks nor panics, and its error is a bare number.
        unsafe {
            command.pre_exec(move || Err(image.become_it()));
        }
    }

    /// What the kernel is given, made before the fork.
    struct Image {
        program: CString,
        arguments: Strings,
        environment: Strings,
    }

    impl Image {
        fn of(command: &Command, arg0: &OsStr) -> Result<Self, NulError> {
            let text = |text: &OsStr| CString::new(text.as_bytes());
            let arguments = std::iter::once(arg0).chain(command.get_args()).map(text);
            let variables = command.get_envs().filter_map(|(name, value)| Some((name, value?)));
            let variables = variables
                .map(|(name, value)| CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()));
            Ok(Self {
                program: text(command.get_program())?,
                arguments: Strings::new(arguments.collect::<Result<_, _>>()?),
                environment: Strings::new(variables.collect::<Result<_, _>>()?),
            })
        }

        /// Comes back only with an error.
        fn become_it(&self) -> io::Error {
            let (program, arguments, environment) =
                (self.program.as_ptr(), self.arguments.pointers.as_ptr(), self.environment.pointers.as_ptr());
            // SAFETY: all are owned by `self`, strings that end with a zero and arrays that end with a null.
            let _never_zero = unsafe { nix::libc::execve(program, arguments, environment) };
            io::Error::last_os_error()
        }
    }

    /// Strings as C has them: an array of pointers that ends with a null.
    struct Strings {
        pointers: Vec<*const c_char>,
        _owned: Vec<CString>,
    }

    // SAFETY: the pointers lead to what it owns and nobody changes.
    unsafe impl Send for Strings {}
    // SAFETY: the same.
    unsafe impl Sync for Strings {}

    impl Strings {
        fn new(owned: Vec<CString>) -> Self {
            let pointers = owned.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect();
            Self { pointers, _owned: owned }
        }
    }

    #[cfg(test)]
    mod tests {
        use std::fs;
        use std::os::unix::fs::PermissionsExt;
        use std::process::Output;

        use super::*;

        /// What becomes of a program with this content, and of the same one as the standard library starts it.
        fn run(content: &str) -> [io::Result<Output>; 2] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("program");
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            [true, false].map(|alone| {
                let mut command = Command::new(&path);
                command.arg("one").arg("").env_clear().env("A", "b=c").env("GONE", "x").env_remove("GONE");
                if alone {
                    execute(&mut command, OsStr::new("zero"));
                } else {
                    // Something to do between fork and exec, which has the standard library fork.
                    // SAFETY: it does nothing.
                    unsafe { command.pre_exec(|| Ok(())) };
                }
                loop {
                    match command.output() {
                        // Another test has made a child while the file was open for writing.
                        Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => {
                            std::thread::yield_now()
                        }
                        output => break output,
                    }
                }
            })
        }

        #[test]
        fn what_the_kernel_refuses_is_not_handed_to_a_shell() {
            let [alone, by_the_library] = run("echo a shell has run this");
            assert_eq!(alone.unwrap_err().raw_os_error(), Some(nix::libc::ENOEXEC));
            // The reason for all this; if it fails one day, this file can go.
            assert_eq!(by_the_library.unwrap().stdout, b"a shell has run this\n");
        }

        #[test]
        fn arguments_and_environment_arrive() {
            let script = "#!/bin/sh\necho \"$#,$1,$2,$A,${GONE-none}\"";
            for output in run(script) {
                assert_eq!(String::from_utf8(output.unwrap().stdout).unwrap(), "2,one,,b=c,none\n");
            }
        }

        #[test]
        fn the_first_argument_is_the_given_one() {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", "tr '\\0' ' ' < /proc/$$/cmdline"]).env_clear().env("PATH", "/bin:/usr/bin");
            execute(&mut command, OsStr::new("zero"));
            assert!(command.output().unwrap().stdout.starts_with(b"zero -c "));
        }

        #[test]
        fn a_zero_byte_is_an_error() {
            let mut command = Command::new("/bin/true");
            command.arg("a\0b").env_clear();
            execute(&mut command, OsStr::new("true"));
            assert_eq!(command.output().unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
    }
}
