//! The flags of the Go service that this one replaces: one dash, `-port=8080` or `-port 8080`.
//!
//! Pure rewriting of the command line, before clap sees it. What is not a known name is left alone, so that clap's
//! own message answers it.

use std::ffi::OsString;

use clap::Command;

/// Named the symbol to look up in the Go plugin's shared object. A process has no symbols to look up.
const FACTORY_NAME: &str = "cache-plugin-factory-name";

/// A command line in today's spelling.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Modern {
    /// What clap is to parse, program name first.
    pub(super) args: Vec<OsString>,
    /// Flags that were accepted and have no effect any more, as messages for the log.
    pub(super) warnings: Vec<String>,
}

/// Rewrites `-name` to `--name` for each long flag of `command`, and takes out flags that have no meaning any more.
/// Values of a preceding option are never touched.
pub(super) fn modernise(args: impl IntoIterator<Item = OsString>, command: &Command) -> Modern {
    let mut args = args.into_iter();
    let mut modern = Modern { args: args.by_ref().take(1).collect(), warnings: Vec::new() };
    while let Some(arg) = args.next() {
        if arg == "--" {
            modern.args.push(arg);
            modern.args.extend(args.by_ref());
            break;
        }
        let Some(flag) = Flag::parse(&arg) else {
            modern.args.push(arg);
            continue;
        };
        if flag.name == FACTORY_NAME {
            if flag.value_follows {
                args.next();
            }
            modern.warnings.push(format!("-{FACTORY_NAME} is ignored: gRPC plugins need no factory name"));
            continue;
        }
        let known = command.get_arguments().find(|known| known.get_long() == Some(flag.name));
        let has_value_next =
            flag.value_follows && known.is_some_and(|known| known.get_action().takes_values());
        if flag.single_dash && known.is_some() {
            let mut rewritten = OsString::from("-");
            rewritten.push(&arg);
            modern.args.push(rewritten);
        } else {
            modern.args.push(arg);
        }
        if has_value_next {
            modern.args.extend(args.next());
        }
    }
    modern
}

/// `-name`, `--name`, `-name=value` or `--name=value`.
struct Flag<'a> {
    name: &'a str,
    single_dash: bool,
    /// There was no `=`; if the flag takes a value, it is the next argument.
    value_follows: bool,
}

impl<'a> Flag<'a> {
    fn parse(arg: &'a OsString) -> Option<Self> {
        // Only names need to be text, a value may be any bytes; but whatever is not text as a whole is no old flag.
        let text = arg.to_str()?;
        let (single_dash, rest) = match (text.strip_prefix("--"), text.strip_prefix('-')) {
            (Some(rest), _) => (false, rest),
            (None, Some(rest)) => (true, rest),
            (None, None) => return None,
        };
        let (name, value_follows) = match rest.split_once('=') {
            Some((name, _)) => (name, false),
            None => (rest, true),
        };
        Some(Self { name, single_dash, value_follows })
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::config::args::Args;

    fn rewritten(args: &[&str]) -> Vec<String> {
        let (args, warnings) = rewritten_with_warnings(args);
        assert_eq!(warnings, Vec::<String>::new());
        args
    }

    fn rewritten_with_warnings(args: &[&str]) -> (Vec<String>, Vec<String>) {
        let all = std::iter::once("fib-server").chain(args.iter().copied()).map(OsString::from);
        let modern = modernise(all, &Args::command());
        let args = modern.args.into_iter().skip(1).map(|arg| arg.into_string().unwrap()).collect();
        (args, modern.warnings)
    }

    #[test]
    fn one_dash_becomes_two_for_known_names() {
        let old = [
            "-port=8080",
            "-log-level=debug",
            "-cache-expiration=15s",
            "-cache-plugin-path=./x",
            "-host=::1",
        ];
        let new = [
            "--port=8080",
            "--log-level=debug",
            "--cache-expiration=15s",
            "--cache-plugin-path=./x",
            "--host=::1",
        ];
        assert_eq!(rewritten(&old), new);
        assert_eq!(rewritten(&["-port", "8080", "-host", "h"]), ["--port", "8080", "--host", "h"]);
    }

    #[test]
    fn todays_flags_and_unknown_ones_stay() {
        for args in [
            &["--port=1", "--host", "h"][..],
            &["-h"],
            &["-V"],
            &["-"],
            &["-prot=1"],
            &["-p", "1"],
            &["--", "-port=1"],
            &["word", "-x"],
        ] {
            assert_eq!(rewritten(args), args, "{args:?}");
        }
    }

    #[test]
    fn values_of_options_stay() {
        assert_eq!(
            rewritten(&[
                "--cache-plugin-arg",
                "-port=1",
                "-port=2",
                "-cache-plugin-arg",
                "-host",
                "--cache-plugin-arg=-host"
            ]),
            [
                "--cache-plugin-arg",
                "-port=1",
                "--port=2",
                "--cache-plugin-arg",
                "-host",
                "--cache-plugin-arg=-host"
            ]
        );
        // An option without its value at the end is for clap to refuse.
        assert_eq!(rewritten(&["-port"]), ["--port"]);
    }

    #[test]
    fn the_factory_name_is_taken_out_with_a_warning() {
        for args in [
            &["-cache-plugin-factory-name=Factory", "-port=1"][..],
            &["-cache-plugin-factory-name", "Factory", "-port=1"],
            &["--cache-plugin-factory-name", "-Factory", "-port=1"],
        ] {
            let (left, warnings) = rewritten_with_warnings(args);
            assert_eq!((left, warnings.len()), (vec!["--port=1".to_owned()], 1), "{args:?}");
        }
    }
}
