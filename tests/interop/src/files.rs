//! Where things are.

use std::path::PathBuf;

pub use plugin_testkit::program as binary;

/// The folder for what cargo makes, whatever it is called.
pub(crate) fn target_dir() -> PathBuf {
    plugin_testkit::profile_dir().parent().expect("a profile's folder is in another").to_path_buf()
}
