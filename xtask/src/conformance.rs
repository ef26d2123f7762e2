//! `cargo xtask conformance`: a page of the manual that says which test proves each behaviour of the protocol.
//!
//! The page is made from `plugin-sdk/conformance.txt`. A row there is a line with its number and the behaviour, and below
//! it, indented, what proves each side:
//!
//! ```text
//! 24 Junk as the first line
//!   host tests/sample/tests/rows_host.rs::junk_is_quoted
//!   plugin -
//! ```
//!
//! `-` means that this side has nothing to do, `types: ...` that the wrong thing cannot be written, and `missing: ...`
//! that there is no proof yet. A side with several tests has a line for each.
//!
//! Below the line `defects` are what go-plugin does wrong, numbered anew, each with what proves that this crate does not:
//!
//! ```text
//! 3 Stopping a plugin that does not answer waits for ever
//!   ours tests/sample/tests/lifecycle.rs::a_stopped_plugin_is_ended_in_bounded_time
//! ```

use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::path::Path;

use crate::{Outcome, step};

const ROWS: &str = "plugin-sdk/conformance.txt";
const PAGE: &str = "plugin-sdk/src/manual/conformance.md";

/// The line of [`ROWS`] between its parts.
const DEFECTS: &str = "defects";

/// Writes the page anew, or, with `check`, compares only. In both cases every test that is named has to exist.
pub(crate) fn run(root: &Path, check: bool) -> Outcome {
    step("conformance");
    let book = Book::parse(&fs::read_to_string(root.join(ROWS))?)?;
    let mut sources = HashMap::new();
    let proofs =
        book.behaviours.iter().flat_map(Row::proofs).chain(book.defects.iter().flat_map(Row::proofs));
    for proof in proofs {
        if let Proof::Test { file, function } = proof {
            let source = match sources.get(file) {
                Some(source) => source,
                None => {
                    let source = fs::read_to_string(root.join(file))
                        .map_err(|error| format!("{ROWS} names {file}, which cannot be read: {error}"))?;
                    sources.entry(file).or_insert(source)
                }
            };
            if !has_test(source, function) {
                return Err(format!("{ROWS} names {file}::{function}, and there is no such test").into());
            }
        }
    }
    let page = book.page();
    if !check {
        fs::write(root.join(PAGE), &page)?;
    } else if fs::read_to_string(root.join(PAGE)).ok().as_deref() != Some(page.as_str()) {
        return Err(format!("{PAGE} is not what {ROWS} says: run `cargo xtask conformance`").into());
    }
    tell_missing(&book.behaviours);
    tell_missing(&book.defects);
    println!("{} of behaviours, {} of defects", proven(&book.behaviours), proven(&book.defects));
    Ok(())
}

fn tell_missing<const SIDES: usize>(rows: &[Row<SIDES>]) {
    for row in rows.iter().filter(|row| !row.is_proven()) {
        println!("not proven: {} {}", row.number, row.subject);
    }
}

/// Both parts.
struct Book {
    behaviours: Vec<Row<2>>,
    defects: Vec<Row<1>>,
}

/// One behaviour or defect, and what is to be said of each side.
#[derive(Debug, PartialEq)]
struct Row<const SIDES: usize> {
    number: usize,
    subject: String,
    proofs: [Vec<Proof>; SIDES],
}

/// What there is to say of one side of a row.
#[derive(Debug, PartialEq)]
enum Proof {
    /// It has nothing to do.
    NoDuty,
    /// The compiler proves it.
    Types(String),
    /// Nothing proves it yet.
    Missing(String),
    /// A test proves it.
    Test { file: String, function: String },
}

impl<const SIDES: usize> Row<SIDES> {
    fn proofs(&self) -> impl Iterator<Item = &Proof> {
        self.proofs.iter().flatten()
    }

    fn is_proven(&self) -> bool {
        self.proofs().all(|proof| !matches!(proof, Proof::Missing(_)))
    }
}

impl Book {
    fn parse(text: &str) -> Result<Self, Box<dyn Error>> {
        let lines: Vec<_> = text.lines().zip(1..).collect();
        let mut parts = lines.split(|(line, _)| *line == DEFECTS);
        match (parts.next(), parts.next(), parts.next()) {
            (Some(behaviours), Some(defects), None) => Ok(Self {
                behaviours: parse(behaviours, ["host", "plugin"])?,
                defects: parse(defects, ["ours"])?,
            }),
            _ => Err(format!("{ROWS} has to have the line {DEFECTS:?} once").into()),
        }
    }

    fn page(&self) -> String {
        let Self { behaviours, defects } = self;
        [
            INTRODUCTION.to_owned(),
            format!("{} are proven.\n\n", proven(behaviours)),
            table("| # | behaviour | host | plugin |\n|---|---|---|---|\n", behaviours),
            ABOUT_DEFECTS.to_owned(),
            table("| # | go-plugin | proof that this crate does not |\n|---|---|---|\n", defects),
        ]
        .concat()
    }
}

/// Rows of the lines of one part, which have their numbers in the file beside them.
fn parse<const SIDES: usize>(
    lines: &[(&str, usize)],
    sides: [&str; SIDES],
) -> Result<Vec<Row<SIDES>>, Box<dyn Error>> {
    let mut rows: Vec<Row<SIDES>> = Vec::new();
    for (line, at) in lines.iter().filter(|(line, _)| !line.is_empty() && !line.starts_with('#')) {
        let wrong = || format!("{ROWS}:{at}: {line:?} is neither a row nor a proof");
        let (first, rest) = line.trim_start().split_once(' ').ok_or_else(wrong)?;
        if let Ok(number) = first.parse() {
            if number != rows.len() + 1 {
                return Err(format!("{ROWS}:{at}: row {} is missing", rows.len() + 1).into());
            }
            rows.push(Row { number, subject: rest.to_owned(), proofs: [const { Vec::new() }; SIDES] });
            continue;
        }
        let row = rows.last_mut().ok_or_else(wrong)?;
        let side = sides.iter().position(|side| *side == first).ok_or_else(wrong)?;
        row.proofs[side].push(Proof::parse(rest).ok_or_else(wrong)?);
    }
    match rows.iter().find(|row| row.proofs.iter().any(Vec::is_empty)) {
        Some(row) => {
            Err(format!("{ROWS}: row {} does not speak of {}", row.number, sides.join(" and ")).into())
        }
        None => Ok(rows),
    }
}

impl Proof {
    fn parse(text: &str) -> Option<Self> {
        if text == "-" {
            return Some(Self::NoDuty);
        }
        if let Some((kind, reason)) = text.split_once(": ") {
            return match kind {
                "types" => Some(Self::Types(reason.to_owned())),
                "missing" => Some(Self::Missing(reason.to_owned())),
                _ => None,
            };
        }
        let (file, function) = text.split_once("::")?;
        Some(Self::Test { file: file.to_owned(), function: function.to_owned() })
    }
}

/// Whether `source` defines the test, by itself or through a macro of its own that makes tests of names.
fn has_test(source: &str, function: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim_start).collect();
    let is_test = |index: usize| {
        let above = lines[..index].iter().rev();
        let mut attributes = above.take_while(|line| line.contains("#[") || line.starts_with("//"));
        attributes.any(|line| line.contains("#[test]") || line.contains("#[tokio::test"))
    };
    let defines = |line: &str, name: &str| {
        line.trim_start_matches("async ").strip_prefix("fn ").is_some_and(|rest| rest.starts_with(name))
    };
    let own = format!("{function}(");
    if lines.iter().enumerate().any(|(index, line)| defines(line, &own) && is_test(index)) {
        return true;
    }
    let by_macro = lines.iter().enumerate().any(|(index, line)| defines(line, "$") && is_test(index));
    let is_word = |character: char| !character.is_alphanumeric() && character != '_';
    by_macro && source.split(is_word).any(|word| word == function)
}

fn proven<const SIDES: usize>(rows: &[Row<SIDES>]) -> String {
    format!("{} of {} rows", rows.iter().filter(|row| row.is_proven()).count(), rows.len())
}

fn table<const SIDES: usize>(head: &str, rows: &[Row<SIDES>]) -> String {
    let lines = rows.iter().map(|Row { number, subject, proofs }| {
        let cells: Vec<String> = proofs.iter().map(|proofs| cell(proofs)).collect();
        format!("| {number} | {subject} | {} |\n", cells.join(" | "))
    });
    std::iter::once(head.to_owned()).chain(lines).collect()
}

const INTRODUCTION: &str = "\
<!-- Made by `cargo xtask conformance` from plugin-sdk/conformance.txt. -->
What the protocol asks of hosts and of plugins, row by row, and the test that proves it of this crate.

A dash means that there is nothing to do for this side. Where the types leave no way to do it wrong, the cell says so.
Tests in `tests/interop` have go-plugin itself, or a plugin in Python, at the other end.

";

const ABOUT_DEFECTS: &str = "
# Defects of go-plugin that are not here

What go-plugin does up to its release 1.8.0, and the tests that show that this crate does not. None of it is
part of the protocol: plugins and hosts on go-plugin do not notice that it is missing. The numbers are of this table alone.

";

fn cell(proofs: &[Proof]) -> String {
    let proofs: Vec<String> = proofs
        .iter()
        .map(|proof| match proof {
            Proof::NoDuty => "–".to_owned(),
            Proof::Types(reason) => format!("by its types: {reason}"),
            Proof::Missing(reason) => format!("**not yet**: {reason}"),
            Proof::Test { file, function } => format!("[`{function}`]({})", link(file)),
        })
        .collect();
    proofs.join("<br>")
}

/// From the page to a file of the repository.
fn link(file: &str) -> String {
    match file.strip_prefix("plugin-sdk/src/") {
        Some(of_the_crate) => format!("../{of_the_crate}"),
        None => format!("../../../{file}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test() -> Proof {
        Proof::Test { file: "a/b.rs".to_owned(), function: "c".to_owned() }
    }

    #[test]
    fn rows_are_read_with_all_kinds_of_proof() {
        let text = "# Comment.\n1 A b\n  host a/b.rs::c\n  host types: d\n  plugin -\n\ndefects\n1 E\n  ours a/b.rs::c\n";
        let book = Book::parse(text).unwrap();
        let proofs = [vec![test(), Proof::Types("d".to_owned())], vec![Proof::NoDuty]];
        assert_eq!(book.behaviours, [Row { number: 1, subject: "A b".to_owned(), proofs }]);
        assert_eq!(book.defects, [Row { number: 1, subject: "E".to_owned(), proofs: [vec![test()]] }]);
    }

    #[test]
    fn rows_that_say_too_little_are_refused() {
        for text in [
            "2 A\n  host -\n  plugin -\ndefects\n",
            "1 A\n  host -\ndefects\n",
            "1 A\n  host x\ndefects\n",
            "  host -\ndefects\n",
            "1\ndefects\n",
            "1 A\n  host -\n  plugin -\n",
            "defects\n1 A\n  host -\n",
            "defects\n1 A\n",
            "defects\ndefects\n",
        ] {
            assert!(Book::parse(text).is_err(), "{text:?}");
        }
        assert!(Book::parse("defects\n").is_ok());
    }

    #[test]
    fn a_test_is_a_function_with_the_attribute_or_a_name_in_a_macro() {
        let source = "#[test]\nfn a() {}\n\n/// Doc.\n#[tokio::test(start_paused = true)]\nasync fn b() {}\nfn c() {}\n";
        assert!(has_test(source, "a") && has_test(source, "b"));
        assert!(!has_test(source, "c") && !has_test(source, "d"));
        let source = "$(#[test]\nfn $test() {\n})*\n\ncells! { plain: { call } }\nfn call() {}\n";
        assert!(has_test(source, "call") && !has_test(source, "cal"));
    }
}
