//! `grpc.health.v1.Health`, whole: `Check`, `Watch` and `List`. go-plugin serves all three.

use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::HEALTH_SERVICE_NAME;
use crate::generated::health::health_check_response::ServingStatus;
use crate::generated::health::health_server::Health;
use crate::generated::health::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
};

/// Tells hosts whether the plugin is able to work. A plugin begins as serving.
#[derive(Debug, Clone)]
pub struct HealthReporter(watch::Sender<bool>);

impl HealthReporter {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(true))
    }

    /// From now on, `Check` and `Watch` answer `SERVING`.
    pub fn set_serving(&self) {
        self.0.send_replace(true);
    }

    /// From now on, `Check` and `Watch` answer `NOT_SERVING`. The plugin still takes calls.
    pub fn set_not_serving(&self) {
        self.0.send_replace(false);
    }
}

/// The service. Watches end when the token is cancelled, so that a drain does not wait for them.
#[derive(Debug)]
pub(crate) struct HealthService {
    serving: watch::Receiver<bool>,
    closing: CancellationToken,
}

impl HealthService {
    pub(crate) fn new(reporter: &HealthReporter, closing: CancellationToken) -> Self {
        Self { serving: reporter.0.subscribe(), closing }
    }
}

/// The names that this service knows: the plugin's own and the empty one, which means the whole server.
fn is_known(service: &str) -> bool {
    service.is_empty() || service == HEALTH_SERVICE_NAME
}

fn answer(serving: bool) -> HealthCheckResponse {
    let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        if is_known(&request.get_ref().service) {
            Ok(Response::new(answer(*self.serving.borrow())))
        } else {
            Err(Status::not_found("unknown service"))
        }
    }

    async fn list(
        &self,
        _request: Request<HealthListRequest>,
    ) -> Result<Response<HealthListResponse>, Status> {
        let serving = *self.serving.borrow();
        let statuses = ["", HEALTH_SERVICE_NAME].map(|name| (name.to_owned(), answer(serving)));
        Ok(Response::new(HealthListResponse { statuses: statuses.into() }))
    }

    type WatchStream = ReceiverStream<Result<HealthCheckResponse, Status>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (send, receive) = mpsc::channel(1);
        let closing = self.closing.clone();
        let mut serving = self.serving.clone();
        let known = is_known(&request.get_ref().service);
        tokio::spawn(closing.run_until_cancelled_owned(async move {
            if !known {
                // The health protocol wants an answer here, not a status: the name may come to be known.
                let unknown = HealthCheckResponse { status: ServingStatus::ServiceUnknown.into() };
                let _ = send.send(Ok(unknown)).await;
                return send.closed().await;
            }
            loop {
                let now = answer(*serving.borrow_and_update());
                if send.send(Ok(now)).await.is_err() {
                    return;
                }
                tokio::select! {
                    changed = serving.changed() => if changed.is_err() { return },
                    () = send.closed() => return,
                }
            }
        }));
        Ok(Response::new(ReceiverStream::new(receive)))
    }
}

impl HealthService {
    pub(crate) fn into_server(self) -> crate::generated::health::health_server::HealthServer<Self> {
        crate::generated::health::health_server::HealthServer::new(self)
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt;

    use super::*;

    fn service() -> (HealthReporter, HealthService) {
        let reporter = HealthReporter::new();
        let service = HealthService::new(&reporter, CancellationToken::new());
        (reporter, service)
    }

    fn request(service: &str) -> Request<HealthCheckRequest> {
        Request::new(HealthCheckRequest { service: service.into() })
    }

    #[tokio::test]
    async fn check_and_list_follow_the_reporter() {
        let (reporter, service) = service();
        for serving in [true, false, true] {
            if serving {
                reporter.set_serving()
            } else {
                reporter.set_not_serving()
            }
            for name in ["", "plugin"] {
                assert_eq!(service.check(request(name)).await.unwrap().into_inner(), answer(serving));
            }
            let list = service.list(Request::new(HealthListRequest {})).await.unwrap().into_inner();
            assert_eq!(list.statuses["plugin"], answer(serving));
        }
        assert_eq!(service.check(request("other")).await.unwrap_err().code(), tonic::Code::NotFound);
    }

    #[tokio::test]
    async fn watch_tells_changes_and_ends_with_the_plugin() {
        let (reporter, service) = service();
        let mut watch = service.watch(request("plugin")).await.unwrap().into_inner();
        assert_eq!(watch.next().await.unwrap().unwrap(), answer(true));
        reporter.set_not_serving();
        assert_eq!(watch.next().await.unwrap().unwrap(), answer(false));
        service.closing.cancel();
        assert!(watch.next().await.is_none());
    }
}
