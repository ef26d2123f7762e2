//! The service: each call becomes one of a [`PluginHandle`].

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};

use super::convert::{crash, event, level, line, plugin, refusal, since};
use super::feed::{Feed, Pumps, of_kept};
use super::{ControlOptions, HostLevel};
use crate::control::plugin_control_server::PluginControl;
use crate::control::{
    EventsRequest, EventsResponse, GetCrashRequest, GetCrashResponse, GetRequest, GetResponse, Host,
    ListCrashesRequest, ListCrashesResponse, ListRequest, ListResponse, LogsRequest, LogsResponse,
    OrderRequest, OrderResponse, Outcome, Reason, ReloadRequest, SetLogLevelRequest, SetLogLevelResponse,
    Wait, events_response, logs_response, set_log_level_request,
};
use crate::host::{
    Event, Followed, Live, LogLine, Numbered, OrderError, PluginHandle, PluginState, PluginStatus,
};

/// Clients that follow at once. Each may make the host hold what a journal keeps once more, as may each reader.
const MAX_FOLLOWERS: usize = 64;

/// Clients at once that read what is kept and do not follow.
const MAX_READERS: usize = 32;

/// Orders under way at once. Fewer than what a supervisor takes without waiting.
const MAX_ORDERS: usize = 32;

pub(super) struct Service {
    plugins: Vec<PluginHandle>,
    host: Host,
    host_level: Option<HostLevel>,
    followers: Arc<Semaphore>,
    readers: Arc<Semaphore>,
    orders: Arc<Semaphore>,
    stop: CancellationToken,
    /// What goes on beside the calls.
    tasks: TaskTracker,
}

enum Order {
    Restart,
    Reload(Option<PathBuf>),
    Stop,
    Start,
    Disable,
    Enable,
    Clear,
}

/// How far a client reads.
enum Reading<T> {
    Kept(OwnedSemaphorePermit),
    Following(Pumps<T>),
}

type Obeyed = Pin<Box<dyn Future<Output = Result<Option<Live>, OrderError>> + Send>>;

impl Service {
    pub(super) fn new(
        plugins: Vec<PluginHandle>,
        options: ControlOptions,
        stop: CancellationToken,
        tasks: TaskTracker,
    ) -> Self {
        let name = options.name.unwrap_or_else(|| {
            let program = std::env::current_exe().unwrap_or_default();
            program.file_name().unwrap_or_default().to_string_lossy().into_owned()
        });
        Self {
            plugins: plugins.into_iter().map(PluginHandle::for_operators).collect(),
            host: Host { name, pid: std::process::id(), since: Some(SystemTime::now().into()) },
            host_level: options.host_level,
            followers: Arc::new(Semaphore::new(MAX_FOLLOWERS)),
            readers: Arc::new(Semaphore::new(MAX_READERS)),
            orders: Arc::new(Semaphore::new(MAX_ORDERS)),
            stop,
            tasks,
        }
    }

    /// The plugin of that name, or the only one.
    fn find(&self, name: &str) -> Result<&PluginHandle, Status> {
        let found = match (name, self.plugins.as_slice()) {
            ("", [only]) => Some(only),
            (name, plugins) => plugins.iter().find(|plugin| plugin.name() == name),
        };
        found.ok_or_else(|| {
            let names: Vec<_> = self.plugins.iter().map(PluginHandle::name).collect();
            let (names, count) = (names.join(", "), names.len());
            match (name, count) {
                ("", 0) => Reason::NoSuchPlugin.status_with("the host has no plugin", [("plugins", names)]),
                ("", _) => Reason::PluginNotNamed
                    .status_with(format!("name one of its {count} plugins: {names}"), [("plugins", names)]),
                (name, _) => Reason::NoSuchPlugin.status_with(
                    format!("no plugin is called {name:?}; there is {names}"),
                    [("plugins", names)],
                ),
            }
        })
    }

    /// The plugin of that name, or all.
    fn find_all(&self, name: &str) -> Result<&[PluginHandle], Status> {
        if name.is_empty() { Ok(&self.plugins) } else { self.find(name).map(std::slice::from_ref) }
    }

    async fn order(&self, name: &str, wait: i32, order: Order) -> Result<Response<OrderResponse>, Status> {
        let handle = self.find(name)?.clone();
        let wait = Wait::try_from(wait)
            .map_err(|_| Reason::BadRequest.status(format!("there is no way {wait} to wait")))?;
        let place = Arc::clone(&self.orders).try_acquire_owned();
        let place = place.map_err(|_| Reason::Busy.status("too many orders are waiting"))?;
        let before = handle.status().borrow().clone();
        let may_be_so_already = !matches!(order, Order::Restart | Order::Reload(_));
        let obeyed = obey(handle.clone(), order);
        let outcome = match wait {
            Wait::Accepted => {
                self.finish_apart(obeyed, place);
                Outcome::Accepted
            }
            Wait::Done => {
                let done = self.stop.run_until_cancelled(obeyed).await;
                let done = done.unwrap_or(Err(OrderError::Gone)).map_err(|error| refusal(&error))?;
                let unchanged = may_be_so_already
                    && is_unchanged(&before, done.as_ref(), &handle.status().borrow().state);
                if unchanged { Outcome::Unchanged } else { Outcome::Done }
            }
        };
        Ok(Response::new(OrderResponse { outcome: outcome.into(), plugin: Some(plugin(&handle)) }))
    }

    /// Gives the order, and lets nobody wait for what it leads to.
    fn finish_apart(&self, obeyed: Obeyed, place: OwnedSemaphorePermit) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            let _outcome = stop.run_until_cancelled(obeyed).await;
            drop(place);
        });
    }

    fn pumps<T: Send + 'static>(&self) -> Result<Pumps<T>, Status> {
        Ok(Pumps::new(take_place(&self.followers)?, self.tasks.clone(), self.stop.clone()))
    }
}

/// A place among those who read, or those who follow.
fn take_place(places: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Status> {
    let place = Arc::clone(places).try_acquire_owned();
    place.map_err(|_| Reason::TooManyFollowers.status("too many clients read or follow already"))
}

fn obey(handle: PluginHandle, order: Order) -> Obeyed {
    Box::pin(async move {
        match order {
            Order::Restart => handle.restart().await,
            Order::Reload(program) => handle.reload(program).await,
            Order::Stop => handle.stop().await,
            Order::Start => handle.start().await,
            Order::Disable => handle.disable().await,
            Order::Enable => handle.enable().await,
            Order::Clear => handle.clear().await,
        }
    })
}

/// Whether what an order led to was so before.
fn is_unchanged(before: &PluginStatus, live: Option<&Live>, after: &PluginState) -> bool {
    match (before.state.live(), live) {
        (Some(before), Some(live)) => before.instance == live.instance,
        (None, None) => match (&before.state, after) {
            (PluginState::Stopped(before), PluginState::Stopped(after)) => before == after,
            (before, after) => before.name() == after.name(),
        },
        _ => false,
    }
}

/// The latest, if not all are wanted.
fn latest<T>(mut all: Vec<T>, tail: Option<u32>) -> Vec<T> {
    let wanted = tail.map_or(usize::MAX, |tail| tail as usize);
    all.drain(..all.len().saturating_sub(wanted));
    all
}

#[tonic::async_trait]
impl PluginControl for Service {
    async fn list(&self, _request: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let plugins = self.plugins.iter().map(plugin).collect();
        Ok(Response::new(ListResponse { host: Some(self.host.clone()), plugins }))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let handle = self.find(&request.get_ref().plugin)?;
        Ok(Response::new(GetResponse { plugin: Some(plugin(handle)) }))
    }

    async fn restart(&self, request: Request<OrderRequest>) -> Result<Response<OrderResponse>, Status> {
        let OrderRequest { plugin, wait } = request.into_inner();
        self.order(&plugin, wait, Order::Restart).await
    }

    async fn reload(&self, request: Request<ReloadRequest>) -> Result<Response<OrderResponse>, Status> {
        let ReloadRequest { plugin, wait, program } = request.into_inner();
        let program = Some(PathBuf::from(program)).filter(|program| !program.as_os_str().is_empty());
        if program.as_ref().is_some_and(|program| !program.is_absolute()) {
            return Err(Reason::BadRequest.status("`program` has to be an absolute path"));
        }
        self.order(&plugin, wait, Order::Reload(program)).await
    }

    async fn stop(&self, request: Request<OrderRequest>) -> Result<Response<OrderResponse>, Status> {
        let OrderRequest { plugin, wait } = request.into_inner();
        self.order(&plugin, wait, Order::Stop).await
    }

    async fn start(&self, request: Request<OrderRequest>) -> Result<Response<OrderResponse>, Status> {
        let OrderRequest { plugin, wait } = request.into_inner();
        self.order(&plugin, wait, Order::Start).await
    }

    async fn disable(&self, request: Request<OrderRequest>) -> Result<Response<OrderResponse>, Status> {
        let OrderRequest { plugin, wait } = request.into_inner();
        self.order(&plugin, wait, Order::Disable).await
    }

    async fn enable(&self, request: Request<OrderRequest>) -> Result<Response<OrderResponse>, Status> {
        let OrderRequest { plugin, wait } = request.into_inner();
        self.order(&plugin, wait, Order::Enable).await
    }

    async fn clear(&self, request: Request<OrderRequest>) -> Result<Response<OrderResponse>, Status> {
        let OrderRequest { plugin, wait } = request.into_inner();
        self.order(&plugin, wait, Order::Clear).await
    }

    type LogsStream = Feed<LogsResponse>;

    async fn logs(&self, request: Request<LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        let request = request.into_inner();
        let journal = self.find(&request.plugin)?.logs();
        let (since, level) = (since(request.since)?, level(request.min_level)?);
        // Levels compare by how much they let through: ERROR is the least.
        let wanted = move |entry: &LogLine| {
            entry.at >= since && level.is_none_or(|least_important| entry.level <= least_important)
        };
        let show = |numbered| LogsResponse { item: Some(logs_response::Item::Line(line(numbered))) };
        let shown = |kept: Vec<Numbered<LogLine>>| {
            let kept: Vec<_> = kept.into_iter().filter(|numbered| wanted(&numbered.entry)).collect();
            latest(kept, request.tail).into_iter().map(show).collect()
        };
        if !request.follow {
            let place = take_place(&self.readers)?;
            return Ok(Response::new(of_kept(shown(journal.kept()), place)));
        }
        let pumps = self.pumps()?;
        let (kept, follow) = journal.follow();
        pumps.add(follow, move |followed| match followed {
            Followed::Entry(numbered) => wanted(&numbered.entry).then(|| show(numbered)),
            Followed::Missed(missed) => {
                Some(LogsResponse { item: Some(logs_response::Item::Missed(missed)) })
            }
        });
        Ok(Response::new(pumps.after(shown(kept))))
    }

    type EventsStream = Feed<EventsResponse>;

    async fn events(&self, request: Request<EventsRequest>) -> Result<Response<Self::EventsStream>, Status> {
        let request = request.into_inner();
        let handles = self.find_all(&request.plugin)?;
        let since = since(request.since)?;
        let reading = if request.follow {
            Reading::Following(self.pumps()?)
        } else {
            Reading::Kept(take_place(&self.readers)?)
        };
        let mut all = Vec::new();
        for handle in handles {
            let name = handle.name().to_owned();
            let kept = match &reading {
                Reading::Kept(_) => handle.events().kept(),
                Reading::Following(pumps) => {
                    let (kept, follow) = handle.events().follow();
                    let name = name.clone();
                    pumps.add(follow, move |followed| match followed {
                        Followed::Entry(numbered) => {
                            (numbered.entry.at >= since).then(|| event_of(&name, &numbered))
                        }
                        Followed::Missed(missed) => Some(EventsResponse {
                            plugin: name.clone(),
                            item: Some(events_response::Item::Missed(missed)),
                        }),
                    });
                    kept
                }
            };
            let wanted = kept.into_iter().filter(|numbered| numbered.entry.at >= since);
            all.extend(wanted.map(|numbered| (numbered.entry.at, event_of(&name, &numbered))));
        }
        // Those of one plugin stay in their order, as the sort is stable and each was noted after the one before.
        all.sort_by_key(|(at, _)| *at);
        let kept = latest(all, request.tail).into_iter().map(|(_, message)| message).collect();
        Ok(Response::new(match reading {
            Reading::Kept(place) => of_kept(kept, place),
            Reading::Following(pumps) => pumps.after(kept),
        }))
    }

    async fn set_log_level(
        &self,
        request: Request<SetLogLevelRequest>,
    ) -> Result<Response<SetLogLevelResponse>, Status> {
        let SetLogLevelRequest { target, level: wanted } = request.into_inner();
        let Some(level) = level(wanted)? else {
            return Err(Reason::BadRequest.status("`level` is missing"));
        };
        match target {
            Some(set_log_level_request::Target::Host(())) => {
                let set = self.host_level.as_ref();
                let set = set.ok_or_else(|| {
                    Reason::NoHostLevel.status("this host does not change its own log level")
                })?;
                set(level)
                    .map_err(|error| Reason::HostFailed.status(crate::one_line(&*error).to_string()))?;
            }
            Some(set_log_level_request::Target::Plugin(name)) => self.find(&name)?.set_log_level(level),
            None => self.find("")?.set_log_level(level),
        }
        Ok(Response::new(SetLogLevelResponse {}))
    }

    async fn list_crashes(
        &self,
        request: Request<ListCrashesRequest>,
    ) -> Result<Response<ListCrashesResponse>, Status> {
        let handles = self.find_all(&request.get_ref().plugin)?;
        let mut crashes: Vec<_> = handles.iter().flat_map(|handle| handle.crashes().kept()).collect();
        crashes.sort_by_key(|numbered| numbered.entry.at);
        Ok(Response::new(ListCrashesResponse { crashes: crashes.iter().map(crash).collect() }))
    }

    async fn get_crash(
        &self,
        request: Request<GetCrashRequest>,
    ) -> Result<Response<GetCrashResponse>, Status> {
        let GetCrashRequest { plugin, number } = request.into_inner();
        let handle = self.find(&plugin)?;
        let kept = handle.crashes().kept();
        let found = kept.into_iter().rev().find(|crash| number == 0 || crash.number == number);
        let Some(mut found) = found else {
            let message = match number {
                0 => format!("no crash of {} is remembered", handle.name()),
                number => format!("no crash {number} of {} is remembered", handle.name()),
            };
            return Err(Reason::NoSuchCrash.status(message));
        };
        let stderr = std::mem::take(&mut found.entry.stderr);
        let crash = crate::control::Crash { stderr, ..crash(&found) };
        Ok(Response::new(GetCrashResponse { crash: Some(crash) }))
    }
}

fn event_of(name: &str, numbered: &Numbered<Event>) -> EventsResponse {
    let item = Some(events_response::Item::Event(event(numbered)));
    EventsResponse { plugin: name.to_owned(), item }
}
