//! The README shows the files of `examples/kv`. Not a test of that package: whoever copies it has another README.

use std::fs;
use std::path::Path;

#[test]
fn the_readme_shows_the_files_of_the_example_as_they_are() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(here.join("README.md")).unwrap();
    let example = here.join("examples/kv");
    let files = [
        "Cargo.toml",
        "proto/kv/v1/kv.proto",
        "build.rs",
        "src/lib.rs",
        "src/bin/kv-plugin.rs",
        "src/bin/kv-host.rs",
    ];
    let shown: Vec<_> = blocks(&readme).filter(|(language, _)| *language != "text").collect();
    assert_eq!(shown.len(), files.len(), "a block that is in no file is a block that nobody compiles");
    for (file, (_, code)) in files.into_iter().zip(shown) {
        let whole = fs::read_to_string(example.join(file)).unwrap();
        let same = if file == "Cargo.toml" { whole.contains(code) } else { whole == code };
        assert!(same, "plugin-sdk/README.md does not show {file} as it is");
    }
}

/// The fenced blocks of a page: language and content.
fn blocks(page: &str) -> impl Iterator<Item = (&str, &str)> {
    page.split("```").skip(1).step_by(2).filter_map(|block| block.split_once('\n'))
}
