//! gRPC reflection, `v1` and `v1alpha`: a plugin tells which services it serves and what their messages are made of,
//! for tools such as grpcurl. go-plugin's plugins do the same.
//!
//! The services of the SDK are described by the SDK, those of the application by the file descriptor sets that it gives. A set may
//! describe more than is served, the services of another version perhaps: only what is served is told.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::pin;
use std::task::{self, Poll, Waker};

use http::{Request, Response};
use prost::Message;
use prost_types::FileDescriptorSet;
use thiserror::Error;
use tonic::body::Body;
use tonic::service::Routes;
use tonic_reflection::pb::{v1, v1alpha};
use tonic_reflection::server::Builder;
use tower::{Layer, Service, ServiceExt};

use super::builder::{Context, Factory, ServeError};

/// The services that every plugin has beside the application's own, reflection apart.
const OWN_DESCRIPTORS: &[u8] = include_bytes!("../generated/descriptors.bin");

/// File descriptor sets that nothing can be told from.
#[derive(Debug, Error)]
pub(crate) enum DescriptorProblem {
    #[error("they are no encoded google.protobuf.FileDescriptorSet")]
    Undecodable(#[from] prost::DecodeError),
    #[error("they are not complete")]
    Incomplete(#[from] tonic_reflection::server::Error),
}

/// The services of one application version, not made yet, and what describes them.
pub(super) struct Services {
    pub(super) make: Factory,
    pub(super) descriptors: Vec<&'static [u8]>,
}

impl Services {
    /// Makes them, and reflection to go with them.
    pub(super) async fn routes(self, context: &Context) -> Result<Routes, ServeError> {
        let app_version = context.app_version();
        let made = (self.make)(context.clone()).await;
        let routes = made.map_err(|source| ServeError::Services { app_version, source })?;
        add_to(routes, &self.descriptors).map_err(|problem| ServeError::Descriptors(problem.into()))
    }
}

/// Adds both reflection services to those of an application, unless it serves them itself.
fn add_to(routes: Routes, descriptors: &[&'static [u8]]) -> Result<Routes, DescriptorProblem> {
    let probe = Probe::new(&routes);
    let mut names = services_in(OWN_DESCRIPTORS)?;
    names.extend([v1_name(), v1alpha_name()].map(str::to_owned));
    for set in descriptors {
        for name in services_in(set)? {
            if !names.contains(&name) && probe.finds(&name) {
                names.push(name);
            }
        }
    }
    let builder = || {
        let sets = [OWN_DESCRIPTORS, v1::FILE_DESCRIPTOR_SET, v1alpha::FILE_DESCRIPTOR_SET];
        let sets = sets.iter().chain(descriptors);
        let builder = Builder::configure().include_reflection_service(false);
        let builder = sets.fold(builder, |builder, set| builder.register_encoded_file_descriptor_set(set));
        names.iter().fold(builder, Builder::with_service_name)
    };
    let (v1, v1alpha) = (builder().build_v1()?, builder().build_v1alpha()?);
    let routes = if probe.finds(v1_name()) { routes } else { routes.add_service(v1) };
    Ok(if probe.finds(v1alpha_name()) { routes } else { routes.add_service(v1alpha) })
}

fn v1_name() -> &'static str {
    v1::server_reflection_server::SERVICE_NAME
}

fn v1alpha_name() -> &'static str {
    v1alpha::server_reflection_server::SERVICE_NAME
}

/// Full names of the services that a set describes.
fn services_in(set: &[u8]) -> Result<Vec<String>, prost::DecodeError> {
    let set = FileDescriptorSet::decode(set)?;
    let names = set.file.iter().flat_map(|file| {
        file.service.iter().map(|service| match file.package() {
            "" => service.name().to_owned(),
            package => format!("{package}.{}", service.name()),
        })
    });
    Ok(names.collect())
}

/// Finds out what routes there are, as `Routes` does not tell: a copy of them in which each leads to [`Found`].
struct Probe(Routes);

impl Probe {
    fn new(routes: &Routes) -> Self {
        let router = routes.clone().into_axum_router();
        Self(Routes::from(if router.has_routes() { router.route_layer(Found) } else { router }))
    }

    fn finds(&self, service: &str) -> bool {
        let request = Request::post(format!("/{service}/probe")).body(Body::empty());
        let Ok(request) = request else { return false };
        // Neither the router nor `Found` ever waits.
        let answer = pin!(self.0.clone().oneshot(request));
        match answer.poll(&mut task::Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(response)) => response.extensions().get::<Found>().is_some(),
            Poll::Pending => false,
        }
    }
}

/// Stands in for all services, and leaves itself in its answer.
#[derive(Debug, Clone, Copy)]
struct Found;

impl<S> Layer<S> for Found {
    type Service = Self;

    fn layer(&self, _inner: S) -> Self {
        Self
    }
}

impl<R> Service<R> for Found {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut task::Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _request: R) -> Self::Future {
        let mut response = Response::new(Body::empty());
        response.extensions_mut().insert(Self);
        ready(Ok(response))
    }
}

#[cfg(test)]
mod tests {
    use tonic::server::NamedService;

    use super::*;

    /// A service with nothing but a name.
    #[derive(Debug, Clone)]
    struct Served;

    impl NamedService for Served {
        const NAME: &'static str = "app.v1.Served";
    }

    impl Service<Request<Body>> for Served {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = Ready<Result<Response<Body>, Infallible>>;

        fn poll_ready(&mut self, _cx: &mut task::Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _request: Request<Body>) -> Self::Future {
            unreachable!("a service is never called to find out whether it is there")
        }
    }

    #[test]
    fn a_probe_finds_what_is_served_and_calls_nothing() {
        let probe = Probe::new(&Routes::new(Served));
        assert!(probe.finds("app.v1.Served"));
        for other in ["app.v1.Other", "app.v1", "", "{x}", "a b", "a/../app.v1.Served"] {
            assert!(!probe.finds(other), "{other:?}");
        }
        assert!(!Probe::new(&Routes::default()).finds("app.v1.Served"));
    }

    #[test]
    fn bad_descriptors_are_an_error() {
        let bad: [&'static [u8]; 3] = [b"nonsense", &[0x0a, 0x7f], &[0x0a, 0x00]];
        for bytes in bad {
            assert!(add_to(Routes::default(), &[bytes]).is_err(), "{bytes:?}");
        }
        assert!(add_to(Routes::default(), &[b""]).is_ok());
    }

    #[test]
    fn an_application_may_serve_reflection_itself() {
        let v1 = Builder::configure().build_v1().unwrap();
        let routes = add_to(Routes::new(v1), &[]).unwrap();
        let probe = Probe::new(&routes);
        assert!(probe.finds(v1_name()) && probe.finds(v1alpha_name()));
    }
}
