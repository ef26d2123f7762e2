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

use std::collections::HashMap;
use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use crate::{Outcome, step};

const ROWS: &str = "plugin-sdk/conformance.txt";
const PAGE: &str = "plugin-sdk/src/manual/conformance.md";

/// Writes the page anew, or, with `check`, compares only. In both cases every test that is named has to exist.
pub(crate) fn run(root: &Path, check: bool) -> Outcome {
    step("conformance");
    let rows = parse(&fs::read_to_string(root.join(ROWS))?)?;
    let mut sources = HashMap::new();
    for proof in rows.iter().flat_map(Row::proofs) {
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
    let page = page(&rows);
    if !check {
        fs::write(root.join(PAGE), &page)?;
    } else if fs::read_to_string(root.join(PAGE)).ok().as_deref() != Some(page.as_str()) {
        return Err(format!("{PAGE} is not what {ROWS} says: run `cargo xtask conformance`").into());
    }
    for row in rows.iter().filter(|row| !row.is_proven()) {
        println!("not proven: {} {}", row.number, row.behaviour);
    }
    println!("{} of {} rows are proven", rows.iter().filter(|row| row.is_proven()).count(), rows.len());
    Ok(())
}

/// One behaviour.
#[derive(Debug, PartialEq)]
struct Row {
    number: usize,
    behaviour: String,
    host: Vec<Proof>,
    plugin: Vec<Proof>,
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

impl Row {
    fn proofs(&self) -> impl Iterator<Item = &Proof> {
        self.host.iter().chain(&self.plugin)
    }

    fn is_proven(&self) -> bool {
        self.proofs().all(|proof| !matches!(proof, Proof::Missing(_)))
    }
}

fn parse(text: &str) -> Result<Vec<Row>, Box<dyn Error>> {
    let mut rows: Vec<Row> = Vec::new();
    let lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    for (index, line) in lines {
        let wrong = || format!("{ROWS}:{}: {line:?} is neither a row nor a proof", index + 1);
        let (first, rest) = line.trim_start().split_once(' ').ok_or_else(wrong)?;
        if let Ok(number) = first.parse() {
            if number != rows.len() + 1 {
                return Err(format!("{ROWS}:{}: row {} is missing", index + 1, rows.len() + 1).into());
            }
            let behaviour = rest.to_owned();
            rows.push(Row { number, behaviour, host: Vec::new(), plugin: Vec::new() });
            continue;
        }
        let row = rows.last_mut().ok_or_else(wrong)?;
        let side = match first {
            "host" => &mut row.host,
            "plugin" => &mut row.plugin,
            _ => return Err(wrong().into()),
        };
        side.push(Proof::parse(rest).ok_or_else(wrong)?);
    }
    match rows.iter().find(|row| row.host.is_empty() || row.plugin.is_empty()) {
        Some(row) => Err(format!("{ROWS}: row {} does not speak of both sides", row.number).into()),
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

fn page(rows: &[Row]) -> String {
    let mut page = String::from(INTRODUCTION);
    let proven = rows.iter().filter(|row| row.is_proven()).count();
    // Writing to a string does not fail.
    let _ = write!(
        page,
        "{proven} of {} rows are proven.\n\n| # | behaviour | host | plugin |\n|---|---|---|---|\n",
        rows.len()
    );
    for Row { number, behaviour, host, plugin } in rows {
        let _ = writeln!(page, "| {number} | {behaviour} | {} | {} |", cell(host), cell(plugin));
    }
    page
}

const INTRODUCTION: &str = "\
<!-- Made by `cargo xtask conformance` from plugin-sdk/conformance.txt. -->
What the protocol asks of hosts and of plugins, row by row, and the test that proves it of this crate.

A dash means that there is nothing to do for this side. Where the types leave no way to do it wrong, the cell says so.
Tests in `tests/interop` have go-plugin itself, or a plugin in Python, at the other end.

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

    #[test]
    fn rows_are_read_with_all_kinds_of_proof() {
        let rows = parse("# Comment.\n1 A b\n  host a/b.rs::c\n  host types: d\n  plugin -\n").unwrap();
        let test = Proof::Test { file: "a/b.rs".to_owned(), function: "c".to_owned() };
        let expected = Row {
            number: 1,
            behaviour: "A b".to_owned(),
            host: vec![test, Proof::Types("d".to_owned())],
            plugin: vec![Proof::NoDuty],
        };
        assert_eq!(rows, [expected]);
    }

    #[test]
    fn rows_that_say_too_little_are_refused() {
        for text in ["2 A\n  host -\n  plugin -\n", "1 A\n  host -\n", "1 A\n  host x\n", "  host -\n", "1\n"]
        {
            assert!(parse(text).is_err(), "{text:?}");
        }
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
