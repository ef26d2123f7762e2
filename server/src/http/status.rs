//! `/healthz`, `/readyz` and `/version`: for those who run the server.

use axum::{body::Bytes, extract::State};
use cache_proto::StatsResponse;
use http::{Response, StatusCode, Uri};
use http_body_util::Full;
use plugin_sdk::host::{PluginHandle, PluginState, PluginStatus};
use serde_json::{Value, json};

use super::{App, Plugin};
use crate::{
    cache::{Cache, StatsAnswer},
    config::FirstStart,
};

pub(super) async fn healthz() -> Response<Full<Bytes>> {
    super::json(StatusCode::OK, "{\"status\":\"ok\"}\n".into())
}

pub(super) async fn version() -> Response<Full<Bytes>> {
    let body = json!({ "name": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION") });
    super::json(StatusCode::OK, format!("{body}\n"))
}

pub(super) async fn readyz(State(app): State<App>, uri: Uri) -> Response<Full<Bytes>> {
    let readiness = Readiness::of(&app);
    let mut body = json!({ "status": readiness.as_str() });
    if is_verbose(&uri) {
        body["plugin"] = match &app.plugin {
            Some(plugin) => describe(&plugin.handle, &app.cache).await,
            None => Value::Null,
        };
    }
    super::json(readiness.status(), format!("{body}\n"))
}

/// An optional plugin that is down does not make the server less ready: it answers all the same. That it waits for the plugin to
/// start, where that begins with the server, is to spare it a time without hits.
enum Readiness {
    Ready,
    Starting,
}

impl Readiness {
    fn of(app: &App) -> Self {
        match &app.plugin {
            Some(Plugin { handle, first_start: FirstStart::WithServer })
                if is_first_start(&handle.status().borrow()) =>
            {
                Self::Starting
            }
            _ => Self::Ready,
        }
    }

    fn as_str(&self) -> &'static str {
        match self {
            Self::Ready => "ok",
            Self::Starting => "starting",
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Ready => StatusCode::OK,
            Self::Starting => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// The first attempt to start has not ended yet, either way.
fn is_first_start(status: &PluginStatus) -> bool {
    status.starts <= 1 && matches!(status.state, PluginState::Starting { .. })
}

fn is_verbose(uri: &Uri) -> bool {
    let query = uri.query().unwrap_or_default();
    query.split('&').any(|pair| pair.split('=').next() == Some("verbose"))
}

async fn describe(plugin: &PluginHandle, cache: &Cache) -> Value {
    let status = plugin.status().borrow().clone();
    let stats = match cache {
        // To look at a plugin that rests must not wake it.
        Cache::Remote(remote) if status.state.live().is_some() => show_stats(remote.stats().await),
        _ => Value::Null,
    };
    json!({
        "name": plugin.name(),
        "state": status.state.name(),
        "pid": status.state.live().and_then(|live| live.pid),
        "restarts": status.restarts,
        "last_error": status.last_failure.as_ref().map(ToString::to_string),
        "stats": stats,
    })
}

fn show_stats(answer: StatsAnswer) -> Value {
    match answer {
        StatsAnswer::Stats(StatsResponse {
            entries,
            bytes,
            capacity_bytes,
            hits,
            misses,
            evictions,
            expirations,
        }) => json!({
            "entries": entries,
            "bytes": bytes,
            "capacity_bytes": capacity_bytes,
            "hits": hits,
            "misses": misses,
            "evictions": evictions,
            "expirations": expirations,
        }),
        StatsAnswer::Unsupported => "unsupported".into(),
        StatsAnswer::Unavailable(_) => Value::Null,
    }
}
