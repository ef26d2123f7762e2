//! What is said, word for word. Each file of `transcripts/` is run against a host of its own:
//!
//! ```text
//! % cache other        a host with these plugins
//! > log cache hello    the host is told to do so
//! $ pluginctl list     is run; its stdout follows, then the lines of stderr, each after "! ", and its exit code after "? "
//! ```
//!
//! What differs from run to run is replaced: `TIME`, `SPAN`, `SOCKET`, `DIR`, `N` for numbers of three digits and more, `N.N` for
//! those with a point. Spaces that align are two. `PLUGINCTL_TRANSCRIPTS=write` writes the files anew, for a person to look at
//! the difference.

use std::fmt::Write;
use std::path::Path;

use crate::host::{Host, Machine};

#[test]
fn orders_are_obeyed_and_told() {
    compare("orders");
}

#[test]
fn reloads_succeed_or_say_why_not() {
    compare("reload");
}

#[test]
fn logs_events_and_crashes_are_shown() {
    compare("looking");
}

#[test]
fn several_plugins_have_to_be_told_apart() {
    compare("several");
}

#[test]
fn programs_get_json() {
    compare("json");
}

#[track_caller]
fn compare(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/operate/transcripts").join(name);
    let path = path.with_extension("txt");
    let expected = std::fs::read_to_string(&path).expect("the transcript is there");
    let found = play(&expected);
    if std::env::var_os("PLUGINCTL_TRANSCRIPTS").is_some_and(|value| value == "write") {
        std::fs::write(&path, found).expect("it can be written");
        return;
    }
    let mut pairs = expected.lines().zip(found.lines()).enumerate();
    if let Some((index, (expected, found))) = pairs.find(|(_, (expected, found))| expected != found) {
        panic!("line {} of {name}:\n expected {expected}\n found    {found}", index + 1);
    }
    assert_eq!(found.lines().count(), expected.lines().count(), "{found}");
}

/// Does what the script says, and gives it back with what comes of it.
fn play(script: &str) -> String {
    let machine = Machine::new();
    let mut host: Option<Host> = None;
    let mut found = String::new();
    for line in script.lines() {
        let (kind, rest) = line.split_at_checked(2).unwrap_or((line, ""));
        match kind {
            "# " | "#" => {}
            "% " => {
                let plugins = rest.split_whitespace().map(|name| machine.plugin(name));
                host = Some(machine.start(std::iter::once("--sure".to_owned()).chain(plugins)));
            }
            "> " => host.as_mut().expect("there is a host").tell(rest),
            "$ " => {
                let _ = writeln!(found, "{line}");
                let ran = machine.run(rest.strip_prefix("pluginctl").expect("nothing else is run"));
                for line in ran.stdout.lines() {
                    let _ = writeln!(found, "{}", normal(line, machine.path()));
                }
                for line in ran.stderr.lines() {
                    let _ = writeln!(found, "! {}", normal(line, machine.path()));
                }
                let _ = writeln!(found, "? {}", ran.code.expect("it ends by itself"));
                continue;
            }
            // What was said when it was written.
            _ if !line.is_empty() => continue,
            _ => {}
        }
        let _ = writeln!(found, "{line}");
    }
    if let Some(host) = host {
        host.end();
    }
    found
}

/// The line without what differs from run to run.
fn normal(line: &str, dir: &Path) -> String {
    let mut line = line.replace(&dir.display().to_string(), "DIR");
    let moment = |at: usize| {
        let text = line.get(at..at + TIME.len())?;
        let fits =
            |(found, pattern): (u8, u8)| found == pattern || (pattern == b'0' && found.is_ascii_digit());
        text.bytes().zip(TIME.bytes()).all(fits).then(|| text.to_owned())
    };
    let moments: Vec<_> = (0..line.len()).filter_map(moment).collect();
    for moment in moments {
        line = line.replace(&moment, "TIME");
    }
    while line.contains("   ") {
        line = line.replace("   ", "  ");
    }
    let delimiter = |character: char| " \",:{}[]()".contains(character);
    let mut normal = String::new();
    for word in line.split_inclusive(delimiter) {
        let text = word.strip_suffix(delimiter).unwrap_or(word);
        normal.push_str(&normal_word(text));
        normal.push_str(&word[text.len()..]);
    }
    // Minutes and seconds are one span.
    while normal.contains("SPAN SPAN") {
        normal = normal.replace("SPAN SPAN", "SPAN");
    }
    normal
}

const TIME: &str = "0000-00-00T00:00:00.000Z";

fn normal_word(word: &str) -> String {
    let number = word.trim_end_matches(|character: char| !character.is_ascii_digit());
    let unit = &word[number.len()..];
    let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let point = number.contains('.');
    match unit {
        _ if word.starts_with("DIR/run/") => "SOCKET".to_owned(),
        _ if !digits => word.to_owned(),
        "ns" | "µs" | "ms" | "s" | "m" | "h" | "d" => "SPAN".to_owned(),
        "" | "%" if point && number.parse::<f64>().is_ok() => format!("N.N{unit}"),
        "" if number.len() > 2 => "N".to_owned(),
        _ => word.to_owned(),
    }
}

#[test]
fn what_differs_is_replaced() {
    let line = r#"a  4711 x, 2026-11-24T22:41:17.652Z 3m 12s 16.8ms /d/run/1.a/b {"n":0.5,"v":2} 1.5% v0.1"#;
    let expected = r#"a  N x, TIME SPAN SOCKET {"n":N.N,"v":2} N.N% v0.1"#;
    assert_eq!(normal(line, Path::new("/d")), expected);
}
