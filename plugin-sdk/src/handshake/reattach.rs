//! What a host needs to reattach to a plugin that somebody else started, as text: the JSON that Terraform and others
//! pass on in a variable such as `TF_REATTACH_PROVIDERS`.
//!
//! ```json
//! {"registry.terraform.io/ns/name":{"Protocol":"grpc","ProtocolVersion":6,"Pid":12345,"Test":true,
//!   "Addr":{"Network":"unix","String":"/tmp/plugin12345"}}}
//! ```

use std::collections::BTreeMap;

use serde_json::{Value, json};
use thiserror::Error;

use super::{AddressProblem, AppVersion, PluginAddress};

/// go-plugin's `ReattachConfig` for a gRPC plugin. Another protocol cannot be expressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReattachConfig {
    /// The version that the plugin serves. `None` for 0, which is what go-plugin writes outside of test mode, where it
    /// does not say.
    pub app_version: Option<AppVersion>,
    /// Where it listens.
    pub address: PluginAddress,
    /// Its process, to watch and to end. `None` for 0: it is no process of this machine, or none of the host's business.
    pub pid: Option<u32>,
    /// The plugin manages its own life: no host ends it.
    pub test: bool,
}

/// Why text is no [`ReattachConfig`].
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReattachProblem {
    /// Not JSON.
    #[error("it is not JSON")]
    Json(#[from] serde_json::Error),
    /// A key is missing or of another type.
    #[error("{0} is missing, or not what it has to be")]
    Key(&'static str),
    /// A plugin for Go's net/rpc; one that does not say is one.
    #[error("its protocol is {0:?}, this host speaks grpc only")]
    Protocol(String),
    /// Not an address.
    #[error("its address cannot be used")]
    Address(#[from] AddressProblem),
}

impl ReattachConfig {
    /// Reads one configuration: the object with `Protocol`, `ProtocolVersion`, `Pid`, `Test` and `Addr`.
    ///
    /// # Errors
    /// Text that is something else.
    pub fn from_json(text: &str) -> Result<Self, ReattachProblem> {
        Self::from_value(&serde_json::from_str(text)?)
    }

    /// Reads an object of configurations by name, the form of `TF_REATTACH_PROVIDERS`.
    ///
    /// # Errors
    /// Text that is something else, or that has one entry that is.
    pub fn map_from_json(text: &str) -> Result<BTreeMap<String, Self>, ReattachProblem> {
        let Value::Object(entries) = serde_json::from_str(text)? else {
            return Err(ReattachProblem::Key("the object of plugins by name"));
        };
        entries.iter().map(|(name, value)| Ok((name.clone(), Self::from_value(value)?))).collect()
    }

    /// Writes an object of configurations by name.
    #[must_use]
    pub fn map_to_json(configs: &BTreeMap<String, Self>) -> String {
        Value::from_iter(configs.iter().map(|(name, config)| (name.clone(), config.to_value()))).to_string()
    }

    /// Writes one configuration.
    #[must_use]
    pub fn to_json(&self) -> String {
        self.to_value().to_string()
    }

    fn to_value(&self) -> Value {
        json!({
            "Protocol": "grpc",
            "ProtocolVersion": self.app_version.map_or(0, AppVersion::get),
            "Pid": self.pid.unwrap_or(0),
            "Test": self.test,
            "Addr": { "Network": self.address.network(), "String": self.address.to_string() },
        })
    }

    fn from_value(value: &Value) -> Result<Self, ReattachProblem> {
        let number = |key: &'static str| match value.get(key) {
            None => Ok(None),
            Some(found) => {
                let number = found.as_u64().and_then(|number| u32::try_from(number).ok());
                number.map(|number| (number != 0).then_some(number)).ok_or(ReattachProblem::Key(key))
            }
        };
        if !value.is_object() {
            return Err(ReattachProblem::Key("the object of a plugin"));
        }
        match value.get("Protocol").and_then(Value::as_str).unwrap_or_default() {
            "grpc" => {}
            other => return Err(ReattachProblem::Protocol(other.to_owned())),
        }
        let address = value.get("Addr").ok_or(ReattachProblem::Key("Addr"))?;
        let network = text(address, "Network", "Addr.Network")?;
        let address = PluginAddress::parse(network, text(address, "String", "Addr.String")?)?;
        let test = match value.get("Test") {
            None => false,
            Some(test) => test.as_bool().ok_or(ReattachProblem::Key("Test"))?,
        };
        Ok(Self {
            app_version: number("ProtocolVersion")?.map(AppVersion),
            address,
            pid: number("Pid")?,
            test,
        })
    }
}

fn text<'a>(object: &'a Value, key: &str, path: &'static str) -> Result<&'a str, ReattachProblem> {
    object.get(key).and_then(Value::as_str).ok_or(ReattachProblem::Key(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terraforms_variable_is_read_and_written() {
        let text = r#"{"registry.terraform.io/ns/name":{"Protocol":"grpc","ProtocolVersion":6,"Pid":12345,
            "Test":true,"Addr":{"Network":"unix","String":"/tmp/plugin12345"}}}"#;
        let configs = ReattachConfig::map_from_json(text).unwrap();
        let expected = ReattachConfig {
            app_version: Some(AppVersion(6)),
            address: PluginAddress::Unix("/tmp/plugin12345".into()),
            pid: Some(12345),
            test: true,
        };
        assert_eq!(configs["registry.terraform.io/ns/name"], expected);
        assert_eq!(ReattachConfig::map_from_json(&ReattachConfig::map_to_json(&configs)).unwrap(), configs);
        assert_eq!(ReattachConfig::from_json(&expected.to_json()).unwrap(), expected);
    }

    #[test]
    fn what_go_plugin_leaves_out_is_not_known() {
        let text = r#"{"Protocol":"grpc","ProtocolVersion":0,"Pid":0,"Addr":{"Network":"tcp","String":"127.0.0.1:5"}}"#;
        let config = ReattachConfig::from_json(text).unwrap();
        assert_eq!((config.app_version, config.pid, config.test), (None, None, false));
    }

    #[test]
    fn an_empty_protocol_is_net_rpc_and_refused() {
        for text in [r#"{"Addr":{}}"#, r#"{"Protocol":""}"#, r#"{"Protocol":"netrpc"}"#] {
            assert!(matches!(ReattachConfig::from_json(text), Err(ReattachProblem::Protocol(_))), "{text}");
        }
    }

    #[test]
    fn bad_text_is_refused_with_the_key() {
        for (text, key) in [
            ("[]", "the object of a plugin"),
            (r#"{"Protocol":"grpc"}"#, "Addr"),
            (r#"{"Protocol":"grpc","Addr":{"Network":"unix"}}"#, "Addr.String"),
            (r#"{"Protocol":"grpc","Pid":-1,"Addr":{"Network":"unix","String":"/x"}}"#, "Pid"),
            (r#"{"Protocol":"grpc","Test":1,"Addr":{"Network":"unix","String":"/x"}}"#, "Test"),
        ] {
            let problem = ReattachConfig::from_json(text).unwrap_err();
            assert!(matches!(problem, ReattachProblem::Key(found) if found == key), "{text}: {problem}");
        }
        assert!(matches!(ReattachConfig::from_json("{"), Err(ReattachProblem::Json(_))));
        assert!(matches!(ReattachConfig::map_from_json("[]"), Err(ReattachProblem::Key(_))));
    }
}
