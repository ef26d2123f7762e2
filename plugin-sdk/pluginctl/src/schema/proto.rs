//! Descriptions from .proto files.

use std::path::{Path, PathBuf};

use prost_reflect::DescriptorPool;
use thiserror::Error;

/// What is wrong with a .proto file or with one that it imports.
#[derive(Debug, Error)]
// The other form of the compiler's error has no place in the file.
#[error("{0:?}")]
pub(crate) struct ProtoError(protox::Error);

/// Compiles files. Imports are looked for in `includes`, then in the directories of the files themselves; Google's own
/// need not be there.
pub(crate) fn compile(files: &[PathBuf], includes: &[PathBuf]) -> Result<DescriptorPool, ProtoError> {
    // A file that is not there may be one of an include directory.
    let own = files.iter().filter(|file| file.exists()).filter_map(|file| file.parent());
    let own = own.map(|dir| if dir.as_os_str().is_empty() { Path::new(".") } else { dir });
    let mut compiler =
        protox::Compiler::new(includes.iter().map(PathBuf::as_path).chain(own)).map_err(ProtoError)?;
    for file in files {
        compiler.open_file(file).map_err(ProtoError)?;
    }
    Ok(compiler.descriptor_pool())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const A: &str = r#"syntax = "proto3"; package a; import "sub/b.proto"; import "google/protobuf/empty.proto";
        service S { rpc M(b.B) returns (google.protobuf.Empty); }"#;

    fn files() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("a.proto"), A).unwrap();
        fs::write(dir.path().join("sub/b.proto"), r#"syntax = "proto3"; package b; message B {}"#).unwrap();
        dir
    }

    #[test]
    fn imports_are_found_beside_the_file_and_in_the_given_directories() {
        let dir = files();
        let moved = dir.path().join("elsewhere");
        fs::create_dir(&moved).unwrap();
        fs::copy(dir.path().join("a.proto"), moved.join("c.proto")).unwrap();
        for (file, includes) in [
            (dir.path().join("a.proto"), vec![]),
            (moved.join("c.proto"), vec![dir.path().to_path_buf()]),
            (PathBuf::from("a.proto"), vec![dir.path().to_path_buf()]),
        ] {
            let pool = compile(&[file], &includes).unwrap();
            assert_eq!(pool.get_service_by_name("a.S").unwrap().methods().len(), 1);
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let dir = files();
        fs::write(dir.path().join("bad.proto"), "syntax = \"proto3\";\nmessage {").unwrap();
        fs::write(dir.path().join("lost.proto"), "syntax = \"proto3\"; import \"nowhere.proto\";").unwrap();
        for (name, told) in [
            ("bad.proto", "bad.proto:2:9: "),
            ("lost.proto", "import 'nowhere.proto' not found"),
            ("none.proto", "none.proto"),
        ] {
            let error = compile(&[dir.path().join(name)], &[]).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }
}
