//! The figures that the README shows, between two lines of its own; the whole report and the plots are in `docs/bench`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Failure;
use crate::plot::Plot;

const BEGIN: &str = "<!-- bench -->\n";
const END: &str = "<!-- /bench -->\n";

/// Where the report and the plots are, in the repository.
const FOLDER: &str = "docs/bench";

/// The README of a repository, which has a place for figures.
#[derive(Debug)]
pub(crate) struct Readme {
    repository: PathBuf,
}

impl Readme {
    /// Looks whether there is a place, so that nothing is measured in vain.
    pub(crate) fn of(repository: &Path) -> Result<Self, Failure> {
        let readme = Self { repository: repository.to_owned() };
        put(&readme.read()?, "")?;
        Ok(readme)
    }

    /// Puts a summary into it, and the report and the plots beside it. The first plots are shown in the README itself,
    /// so many as `shown`.
    pub(crate) fn show(
        &self,
        summary: &str,
        report: &str,
        plots: &[Plot],
        shown: usize,
    ) -> Result<(), Failure> {
        let folder = self.repository.join(FOLDER);
        // What an earlier run had and this one has not must not stay.
        if folder.is_dir() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        let link = |plot: &Plot, folder: &str| format!("![{}]({folder}{}.svg)\n", plot.title(), plot.file());
        for plot in plots {
            fs::write(folder.join(plot.file()).with_extension("svg"), plot.svg())?;
        }
        let links: String = plots.iter().map(|plot| link(plot, "")).collect();
        fs::write(
            folder.join("report.md"),
            format!("# Measured with `cargo xtask bench`\n\n{report}\n{links}"),
        )?;
        let links: String = plots.iter().take(shown).map(|plot| link(plot, &format!("{FOLDER}/"))).collect();
        let rest = format!("All figures and plots are in [{FOLDER}]({FOLDER}/report.md).");
        let text = put(&self.read()?, &format!("\n{summary}\n{links}\n{rest}\n\n"))?;
        Ok(fs::write(self.path(), text)?)
    }

    fn read(&self) -> Result<String, Failure> {
        let path = self.path();
        fs::read_to_string(&path)
            .map_err(|error| format!("{} cannot be read: {error}", path.display()).into())
    }

    fn path(&self) -> PathBuf {
        self.repository.join("README.md")
    }
}

/// The text with this between its two lines, in place of what was there.
fn put(text: &str, between: &str) -> Result<String, Failure> {
    let parts = text.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) = parts.ok_or("the README has no lines <!-- bench --> and <!-- /bench -->")?;
    Ok(format!("{before}{BEGIN}{between}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_between_the_lines_is_replaced_and_all_else_stays() {
        let text = "a\n<!-- bench -->\nold\n<!-- /bench -->\nb\n";
        assert_eq!(put(text, "new\n").unwrap(), text.replace("old", "new"));
        for without in ["a\n", "<!-- bench -->\n", "<!-- /bench -->\n<!-- bench -->\n"] {
            assert!(put(without, "new").is_err(), "{without}");
        }
    }
}
