//! `cargo xtask codegen`: the Rust code and the descriptor sets made from the .proto files, by a protobuf compiler in
//! Rust, so that nobody who builds this repository needs protoc. The results are committed.
//!
//! The compiler takes longer to build than the task to run, and `cargo xtask run` does not need it: it is behind the
//! feature `codegen`, with which this task starts itself again.

use std::path::Path;

use crate::{Outcome, cargo, step};

/// Makes all generated files anew; with `check`, fails where a committed one differs instead of writing it.
#[cfg(not(feature = "codegen"))]
pub(crate) fn run(root: &Path, check: bool) -> Outcome {
    step("building the protobuf compiler");
    let mut command = cargo(root);
    command.args(["run", "--quiet", "--package", "xtask", "--features", "codegen", "--", "codegen"]);
    if check {
        command.arg("--check");
    }
    crate::succeed(command)
}

/// Makes all generated files anew; with `check`, fails where a committed one differs instead of writing it.
#[cfg(feature = "codegen")]
pub(crate) fn run(root: &Path, check: bool) -> Outcome {
    let fresh = crate::run::target()?.join("codegen");
    // What another state of the .proto files has left there is not to be asked for, or copied.
    if fresh.exists() {
        std::fs::remove_dir_all(&fresh)?;
    }
    for set in SETS {
        step(&format!("generating {}", set.into));
        set.generate(&root.join(set.from), &fresh.join(set.into))?;
        let committed = root.join(set.into);
        if check {
            compare(&fresh.join(set.into), &committed)?
        } else {
            copy(&fresh.join(set.into), &committed)?
        }
    }
    let _ = cargo; // Only the other half of this file calls cargo.
    Ok(())
}

/// Protobuf files that become one folder of generated code.
#[cfg(feature = "codegen")]
struct Set {
    /// Folder that imports start from.
    from: &'static str,
    files: &'static [&'static str],
    into: &'static str,
    /// Cargo features that the client and the server code are for; without, both are always there.
    features: Option<[&'static str; 2]>,
}

#[cfg(feature = "codegen")]
const SETS: &[Set] = &[
    Set {
        from: "proto",
        files: &["cache/v1/cache.proto"],
        into: "proto/src/generated",
        features: Some(["client", "server"]),
    },
    Set {
        from: "proto",
        files: &[
            "plugin/broker.proto",
            "plugin/controller.proto",
            "plugin/stdio.proto",
            "grpc/health/v1/health.proto",
        ],
        into: "plugin-sdk/src/generated",
        features: Some(["host", "plugin"]),
    },
    Set {
        from: "proto",
        files: &["plugin/control/v1/control.proto"],
        into: "plugin-sdk/src/control/generated",
        features: None,
    },
    Set {
        from: "tests/sample/proto",
        files: &["sample/v1/sample.proto"],
        into: "tests/sample/src/generated",
        features: None,
    },
];

#[cfg(feature = "codegen")]
impl Set {
    fn generate(&self, include: &Path, out: &Path) -> Outcome {
        use prost::Message;

        std::fs::create_dir_all(out)?;
        let descriptors = protox::compile(self.files, [include])?;
        std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
        let mut builder = tonic_prost_build::configure().bytes(".").build_transport(false).out_dir(out);
        if let Some([client, server]) = self.features {
            builder = builder
                .client_mod_attribute(".", format!("#[cfg(feature = \"{client}\")]"))
                .server_mod_attribute(".", format!("#[cfg(feature = \"{server}\")]"));
        }
        builder.compile_fds(descriptors)?;
        Ok(())
    }
}

#[cfg(feature = "codegen")]
fn files_in(folder: &Path) -> std::io::Result<Vec<std::ffi::OsString>> {
    let mut names = std::fs::read_dir(folder)?
        .map(|entry| Ok(entry?.file_name()))
        .collect::<std::io::Result<Vec<_>>>()?;
    // `mod.rs` is written by hand: it says what the folder is.
    names.retain(|name| name != "mod.rs");
    names.sort();
    Ok(names)
}

#[cfg(feature = "codegen")]
fn compare(fresh: &Path, committed: &Path) -> Outcome {
    let (expected, found) = (files_in(fresh)?, files_in(committed)?);
    if expected != found {
        return Err(format!("{} holds {found:?}, should hold {expected:?}", committed.display()).into());
    }
    for name in expected {
        if std::fs::read(fresh.join(&name))? != std::fs::read(committed.join(&name))? {
            let file = committed.join(name);
            return Err(format!("{} is out of date; run `cargo xtask codegen`", file.display()).into());
        }
    }
    Ok(())
}

#[cfg(feature = "codegen")]
fn copy(fresh: &Path, committed: &Path) -> Outcome {
    std::fs::create_dir_all(committed)?;
    for name in files_in(fresh)? {
        std::fs::copy(fresh.join(&name), committed.join(&name))?;
    }
    Ok(())
}
