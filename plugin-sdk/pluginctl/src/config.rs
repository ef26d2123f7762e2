//! Command line -> a checked [`Config`]. Nothing is started here.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches};
use clap_complete::Shell;
use plugin_sdk::MagicCookie;
use plugin_sdk::host::{Contract, Environment, Launch, Security};
use prost_reflect::DescriptorPool;
use thiserror::Error;
use tonic::metadata::MetadataMap;

use crate::cli::{CallArgs, Cli, Command, Format, StartArgs};
use crate::data::{self, Data, DataError};
use crate::metadata::{self, MetadataError};
use crate::operate::args::Operate;
use crate::schema::{self, MethodName, ProtoError};

/// All that was asked for.
pub(crate) enum Config {
    /// Something with a plugin of one's own.
    Plugin {
        launch: Box<Launch>,
        /// For each call.
        timeout: Duration,
        format: Format,
        task: Task,
    },
    /// Something with the plugins of a running host.
    Operate(Box<Operate>),
    /// A shell's completions.
    Completions(Shell),
    /// Manual pages, into a directory.
    Man(PathBuf),
}

/// What to do with the plugin once it runs.
pub(crate) enum Task {
    Inspect,
    Call(Call),
}

/// A call.
pub(crate) struct Call {
    pub(crate) method: MethodName,
    pub(crate) source: Source,
    pub(crate) data: Data,
    pub(crate) metadata: MetadataMap,
    pub(crate) verbose: bool,
}

/// Where the description of the method is from.
pub(crate) enum Source {
    Reflection,
    Files(DescriptorPool),
}

/// Why the command line cannot be used, or need not be: help is one of clap's errors. Holds no values that may be secrets.
#[derive(Debug, Error)]
pub(crate) enum UsageError {
    #[error("{}", one_paragraph(.0))]
    Clap(clap::Error),
    #[error(
        "--cookie KEY=VALUE is missing: a plugin starts only for a host that knows its magic cookie, which is a constant in \
         the source of the plugin and of its host (MagicCookieKey and MagicCookieValue in Go)"
    )]
    NoCookie,
    #[error("--cookie has to be KEY=VALUE, both not empty")]
    Cookie,
    #[error("--env has to be K=V, its occurrence number {0} is not")]
    Env(usize),
    #[error("-H number {number} {problem}")]
    Metadata { number: usize, problem: MetadataError },
    #[error(transparent)]
    Data(#[from] DataError),
    #[error("--data has to be UTF-8")]
    DataNotText,
    #[error("cannot open {} for --data", path.display())]
    DataFile {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("--proto cannot be used")]
    Proto(#[from] ProtoError),
}

impl From<clap::Error> for UsageError {
    /// Not as a source: its text is in ours already.
    fn from(error: clap::Error) -> Self {
        Self::Clap(error)
    }
}

/// clap's message without its blank lines and the usage after it, so that it fits on one line.
fn one_paragraph(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let kept: Vec<_> =
        lines.take_while(|l| !l.starts_with("Usage:") && !l.starts_with("For more information")).collect();
    kept.join("; ").replace(":; ", ": ").trim_start_matches("error: ").to_owned()
}

/// A variable that is set to nothing counts as not set.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let is_empty =
        |arg: &clap::Arg| arg.get_env().and_then(env::var_os).is_some_and(|value| value.is_empty());
    command
        .mut_args(|arg| if is_empty(&arg) { arg.env(None) } else { arg })
        .mut_subcommands(without_empty_variables)
}

impl Config {
    /// Reads the command line, `args[0]` included.
    pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self, UsageError> {
        let matches = without_empty_variables(Cli::command()).try_get_matches_from(args)?;
        let Cli { command, output } = Cli::from_arg_matches(&matches)?;
        match command {
            Command::Inspect(args) => Self::new(args.start, output, Task::Inspect),
            Command::Call(args) => {
                let (start, call) = Call::new(args)?;
                Self::new(start, output, Task::Call(call))
            }
            Command::Operate(mut operate) => {
                operate.place_mut().output = output;
                Ok(Self::Operate(Box::new(operate)))
            }
            Command::Completions { shell } => Ok(Self::Completions(shell)),
            Command::Man { dir } => Ok(Self::Man(dir)),
        }
    }

    fn new(args: StartArgs, format: Format, task: Task) -> Result<Self, UsageError> {
        let timeout = args.timeout;
        Ok(Self::Plugin { launch: Box::new(launch(args)?), timeout, format, task })
    }
}

impl Call {
    fn new(args: CallArgs) -> Result<(StartArgs, Self), UsageError> {
        let source = match args.proto.as_slice() {
            [] => Source::Reflection,
            files => Source::Files(schema::compile(files, &args.include)?),
        };
        let mut metadata = MetadataMap::new();
        for (index, header) in args.header.iter().enumerate() {
            metadata::add(&mut metadata, header)
                .map_err(|problem| UsageError::Metadata { number: index + 1, problem })?;
        }
        let data = args.data.map_or(Ok(Data::Nothing), data_from)?;
        Ok((args.start, Self { method: args.method, source, data, metadata, verbose: args.verbose }))
    }
}

fn launch(args: StartArgs) -> Result<Launch, UsageError> {
    let contract = Contract::new(cookie(args.cookie)?, args.app_versions);
    let mut launch = Launch::new(args.path, contract)
        .args(args.arg)
        .security(if args.auto_mtls { Security::AutoMtls } else { Security::Plain })
        .multiplexing(args.multiplex)
        .environment(if args.clean_env { Environment::Clean } else { Environment::Inherit })
        .start_timeout(args.start_timeout);
    for (index, variable) in args.env.iter().enumerate() {
        let (name, value) = name_and_value(variable).ok_or(UsageError::Env(index + 1))?;
        launch = launch.env(name, value);
    }
    Ok(launch)
}

fn cookie(text: Option<String>) -> Result<MagicCookie, UsageError> {
    let text = text.ok_or(UsageError::NoCookie)?;
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.is_empty() => {
            Ok(MagicCookie::new(key.to_owned(), value.to_owned()))
        }
        _ => Err(UsageError::Cookie),
    }
}

fn name_and_value(variable: &OsStr) -> Option<(&OsStr, &OsStr)> {
    let bytes = variable.as_bytes();
    let equals = bytes.iter().position(|byte| *byte == b'=').filter(|at| *at > 0)?;
    Some((OsStr::from_bytes(&bytes[..equals]), OsStr::from_bytes(&bytes[equals + 1..])))
}

fn data_from(argument: OsString) -> Result<Data, UsageError> {
    match argument.as_bytes() {
        b"-" => Ok(Data::Stdin),
        [b'@', path @ ..] => {
            let path = Path::new(OsStr::from_bytes(path));
            let file = File::open(path);
            file.map(Data::File).map_err(|source| UsageError::DataFile { path: path.to_owned(), source })
        }
        _ => {
            let text = String::from_utf8(argument.into_vec()).map_err(|_| UsageError::DataNotText)?;
            data::check(&text)?;
            Ok(Data::Text(text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Config, UsageError> {
        Config::parse(["pluginctl"].iter().chain(args).map(OsString::from))
    }

    fn call(args: &[&str]) -> Result<Call, UsageError> {
        let all = [&["call", "/bin/plugin", "a.B/C", "--cookie", "K=V"], args].concat();
        parse(&all).map(|config| match config {
            Config::Plugin { task: Task::Call(call), .. } => call,
            _ => panic!("this is no call"),
        })
    }

    #[test]
    fn help_texts_are_well_formed() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn all_that_a_start_needs_is_read() {
        let args = "inspect plugin --cookie K=V=W --app-versions 5,6 --auto-mtls --multiplex --arg -x --arg=--y \
                    --env A=1 --env B= --clean-env --start-timeout 1s --timeout 1m30s -o json";
        let config = parse(&args.split_whitespace().collect::<Vec<_>>()).unwrap();
        let Config::Plugin { launch, timeout, format, .. } = config else { panic!("it is for a plugin") };
        assert_eq!((timeout, format), (Duration::from_secs(90), Format::Json));
        let launch = format!("{launch:?}");
        for part in [r#"["-x", "--y"]"#, r#"["A", "B"]"#] {
            assert!(launch.contains(part), "{part} is not in {launch}");
        }
    }

    #[test]
    fn names_end_at_the_first_equals_sign() {
        assert_eq!(cookie(Some("K=V=W".to_owned())).unwrap(), MagicCookie::new("K", "V=W"));
        let variable = OsStr::new("B==C");
        assert_eq!(name_and_value(variable), Some((OsStr::new("B"), OsStr::new("=C"))));
        assert_eq!(name_and_value(OsStr::new("B=")), Some((OsStr::new("B"), OsStr::new(""))));
    }

    #[test]
    fn a_missing_or_bad_cookie_is_explained() {
        let missing = parse(&["inspect", "plugin"]).err().unwrap();
        assert!(matches!(missing, UsageError::NoCookie) && missing.to_string().contains("magic cookie"));
        for cookie in ["KEY", "=VALUE", "KEY=", ""] {
            let bad = parse(&["inspect", "plugin", "--cookie", cookie]);
            assert!(matches!(bad, Err(UsageError::Cookie)), "{cookie:?}");
        }
    }

    #[test]
    fn errors_never_hold_what_may_be_secret() {
        for args in [
            &["--env", "hunter2"][..],
            &["--env", "=hunter2"],
            &["-H", "hunter2"],
            &["-H", "a b: hunter2"],
            &["-H", "x-bin: hunter2!"],
        ] {
            let error = call(args).err().unwrap();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
    }

    #[test]
    fn data_are_json_a_file_or_stdin() {
        assert!(matches!(call(&[]).unwrap().data, Data::Nothing));
        assert!(matches!(call(&["--data", "-"]).unwrap().data, Data::Stdin));
        assert!(matches!(call(&["--data", "-5"]).unwrap().data, Data::Text(text) if text == "-5"));
        assert!(matches!(call(&["--data", "@/dev/null"]).unwrap().data, Data::File(_)));
        assert!(matches!(call(&["--data", "@/no/such/file"]), Err(UsageError::DataFile { .. })));
        assert!(matches!(call(&["--data", "{"]), Err(UsageError::Data(DataError::Json(_)))));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for args in [
            &["inspect"][..],
            &["call", "plugin", "--cookie", "K=V"],
            &["call", "plugin", "Method", "--cookie", "K=V"],
            &["call", "plugin", "a/b", "--cookie", "K=V", "-I", "."],
            &["inspect", "plugin", "--cookie", "K=V", "--timeout", "0s"],
            &["inspect", "plugin", "--cookie", "K=V", "--timeout", "5"],
            &["inspect", "plugin", "--cookie", "K=V", "--app-versions", "one"],
        ] {
            assert!(matches!(parse(args), Err(UsageError::Clap(_))), "{args:?}");
        }
        assert!(matches!(call(&["--proto", "/no/such.proto"]), Err(UsageError::Proto(_))));
    }
}
