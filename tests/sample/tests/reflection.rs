//! What a plugin tells of itself by gRPC reflection.

use support::{sample, start};
use tokio_stream::StreamExt;
use tonic_reflection::pb::{v1, v1alpha};

mod support;

/// Of every plugin: go-plugin's services, health, and reflection itself.
const OWN: [&str; 6] = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "plugin.GRPCBroker",
    "plugin.GRPCController",
    "plugin.GRPCStdio",
];

/// Asks one question by one version of the service.
macro_rules! ask {
    ($version:ident, $plugin:expr, $question:ident($text:expr)) => {{
        use $version::server_reflection_client::ServerReflectionClient;
        use $version::server_reflection_request::MessageRequest;
        let mut client = ServerReflectionClient::new($plugin.channel());
        let question = MessageRequest::$question($text.to_owned());
        let request =
            $version::ServerReflectionRequest { host: String::new(), message_request: Some(question) };
        let answers = client.server_reflection_info(tokio_stream::once(request)).await.unwrap();
        answers.into_inner().next().await.unwrap().unwrap().message_response.unwrap()
    }};
}

macro_rules! services {
    ($version:ident, $plugin:expr) => {{
        use $version::server_reflection_response::MessageResponse;
        let MessageResponse::ListServicesResponse(list) = ask!($version, $plugin, ListServices("")) else {
            panic!("another answer")
        };
        let mut names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
        names.sort();
        names
    }};
}

#[tokio::test]
async fn reflection_v1_and_v1alpha_list_exactly_the_services_that_are_served() {
    let (plugin, _) = start(&sample()).await;
    let mut expected = OWN.to_vec();
    expected.push("sample.v1.Sample");
    assert_eq!(services!(v1, plugin), expected);
    assert_eq!(services!(v1alpha, plugin), expected);
    plugin.shutdown().await;
}

#[tokio::test]
async fn every_listed_service_is_described_and_so_is_what_its_file_imports() {
    let (plugin, _) = start(&sample()).await;
    for name in OWN.into_iter().chain(["sample.v1.Sample", "sample.v1.Sample.Echo"]) {
        let answer = ask!(v1, plugin, FileContainingSymbol(name));
        use v1::server_reflection_response::MessageResponse::FileDescriptorResponse;
        assert!(matches!(answer, FileDescriptorResponse(_)), "{name}: {answer:?}");
    }
    let answer = ask!(v1, plugin, FileByFilename("google/protobuf/wrappers.proto"));
    assert!(matches!(answer, v1::server_reflection_response::MessageResponse::FileDescriptorResponse(_)));
    plugin.shutdown().await;
}
