//! `GRPCController`: the host asks the plugin to end.

use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::generated::plugin::Empty;
use crate::generated::plugin::grpc_controller_server::GrpcController;

/// Cancels its token when the host calls `Shutdown`. The reply goes out while the server drains; go-plugin's own
/// server stops so hard that its host rarely gets one.
#[derive(Debug)]
pub(crate) struct Controller(pub(crate) CancellationToken);

#[tonic::async_trait]
impl GrpcController for Controller {
    async fn shutdown(&self, _request: Request<Empty>) -> Result<Response<Empty>, Status> {
        tracing::debug!("the host asks this plugin to shut down");
        self.0.cancel();
        Ok(Response::new(Empty {}))
    }
}
