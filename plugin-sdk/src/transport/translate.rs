//! One socket, two addresses: where a plugin lives in another name space than its host, only the host knows both.

use std::fmt;
use std::io;
use std::sync::Arc;

use crate::PluginAddress;
use crate::services::BrokerError;

/// Knows the addresses of both sides.
pub(crate) trait Translate: fmt::Debug + Send + Sync {
    /// What the peer calls `address`, for this side to connect to.
    fn to_own(&self, address: PluginAddress) -> io::Result<PluginAddress>;

    /// What this side calls `address`, for the peer to connect to.
    fn to_peers(&self, address: PluginAddress) -> io::Result<PluginAddress>;
}

/// How addresses are translated on their way from and to the peer. Default: not at all.
#[derive(Debug, Clone, Default)]
pub(crate) struct Translation(Option<Arc<dyn Translate>>);

impl Translation {
    pub(crate) fn by(translator: Arc<dyn Translate>) -> Self {
        Self(Some(translator))
    }

    /// As [`Translate::to_own`].
    pub(crate) fn to_own(&self, address: PluginAddress) -> Result<PluginAddress, BrokerError> {
        self.apply(address, |translator, address| translator.to_own(address))
    }

    /// As [`Translate::to_peers`].
    pub(crate) fn to_peers(&self, address: PluginAddress) -> Result<PluginAddress, BrokerError> {
        self.apply(address, |translator, address| translator.to_peers(address))
    }

    fn apply(
        &self,
        address: PluginAddress,
        translate: impl FnOnce(&dyn Translate, PluginAddress) -> io::Result<PluginAddress>,
    ) -> Result<PluginAddress, BrokerError> {
        let Some(translator) = &self.0 else { return Ok(address) };
        let translated = translate(&**translator, address.clone());
        translated.map_err(|source| BrokerError::Translation { address, source })
    }
}
