//! `GRPCController`: the host asks the plugin to end.

use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::generated::plugin::Empty;
use crate::generated::plugin::grpc_controller_server::GrpcController;

/// Cancels its token, if it has one, when the host calls `Shutdown`; without, the plugin is not the host's to end.
///
/// The reply goes out while the server drains; go-plugin's own server stops so hard that its host rarely gets one.
#[derive(Debug)]
pub(crate) struct Controller(pub(crate) Option<CancellationToken>);

#[tonic::async_trait]
impl GrpcController for Controller {
    async fn shutdown(&self, _request: Request<Empty>) -> Result<Response<Empty>, Status> {
        let Some(stop) = &self.0 else {
            return Err(Status::failed_precondition("this plugin is a service of its own: stop the service"));
        };
        tracing::debug!("the host asks this plugin to shut down");
        stop.cancel();
        Ok(Response::new(Empty {}))
    }
}
