//! gRPC reflection: asking a plugin for its services and for the files that describe them.
//!
//! Both versions of the service have the same messages, so one client does for both; only the name differs.

use std::fmt;

use prost::Message;
use prost_types::FileDescriptorProto;
use thiserror::Error;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

use crate::limits::MAX_MESSAGE_BYTES;
use crate::status::CallStatus;

/// Version of the reflection service that a plugin has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    /// All that plugins built with older libraries have.
    V1Alpha,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1 => "v1",
            Self::V1Alpha => "v1alpha",
        })
    }
}

impl Version {
    fn path(self) -> PathAndQuery {
        PathAndQuery::from_static(match self {
            Self::V1 => "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            Self::V1Alpha => "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        })
    }
}

/// Why reflection gave no answer.
#[derive(Debug, Error)]
pub(crate) enum ReflectionError {
    #[error("reflection failed")]
    Call(#[source] CallStatus),
    #[error("the plugin's reflection refused to describe {what:?}: {message}")]
    Refused { what: String, message: String },
    #[error("the plugin's reflection answered something else than was asked")]
    Unexpected,
    #[error("the plugin's reflection sent a description that is none")]
    Descriptor(#[from] prost::DecodeError),
}

/// A client of the reflection service. Each question is a call of its own that sends nothing more, so that servers which
/// first read all requests answer too.
#[derive(Debug)]
pub(crate) struct Reflection {
    version: Version,
    client: Grpc<Channel>,
}

impl Reflection {
    /// Begins with the newest version that the plugin has, and asks for its services, which come sorted. `None`: the
    /// plugin has no reflection.
    pub(crate) async fn open(channel: Channel) -> Result<Option<(Self, Vec<String>)>, ReflectionError> {
        for version in [Version::V1, Version::V1Alpha] {
            let client = Grpc::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES);
            let mut reflection = Self { version, client };
            match reflection.services().await {
                Ok(services) => return Ok(Some((reflection, services))),
                Err(ReflectionError::Call(status)) if status.status().code() == Code::Unimplemented => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    async fn services(&mut self) -> Result<Vec<String>, ReflectionError> {
        let request = MessageRequest::ListServices(String::new());
        let MessageResponse::ListServicesResponse(list) = self.ask(request, "the list of services").await?
        else {
            return Err(ReflectionError::Unexpected);
        };
        let mut services: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
        services.sort();
        Ok(services)
    }

    /// Which version is spoken.
    pub(crate) fn version(&self) -> Version {
        self.version
    }

    /// The file that declares `symbol`, and what the plugin sends along with it.
    pub(crate) async fn declaring(
        &mut self,
        symbol: &str,
    ) -> Result<Vec<FileDescriptorProto>, ReflectionError> {
        self.files(MessageRequest::FileContainingSymbol(symbol.to_owned()), symbol).await
    }

    /// The file with this name, and what the plugin sends along with it.
    pub(crate) async fn named(&mut self, name: &str) -> Result<Vec<FileDescriptorProto>, ReflectionError> {
        self.files(MessageRequest::FileByFilename(name.to_owned()), name).await
    }

    async fn files(
        &mut self,
        request: MessageRequest,
        what: &str,
    ) -> Result<Vec<FileDescriptorProto>, ReflectionError> {
        let MessageResponse::FileDescriptorResponse(files) = self.ask(request, what).await? else {
            return Err(ReflectionError::Unexpected);
        };
        let files = files.file_descriptor_proto;
        Ok(files.iter().map(|file| FileDescriptorProto::decode(file.as_slice())).collect::<Result<_, _>>()?)
    }

    async fn ask(&mut self, request: MessageRequest, what: &str) -> Result<MessageResponse, ReflectionError> {
        let failed = |status| ReflectionError::Call(CallStatus::new(status));
        self.client.ready().await.map_err(|error| failed(Status::from_error(error.into())))?;
        let request = ServerReflectionRequest { host: String::new(), message_request: Some(request) };
        let codec = ProstCodec::<_, ServerReflectionResponse>::default();
        let request = Request::new(tokio_stream::once(request));
        let response = self.client.streaming(request, self.version.path(), codec).await.map_err(failed)?;
        let answer = response.into_inner().message().await.map_err(failed)?;
        match answer.and_then(|answer| answer.message_response) {
            Some(MessageResponse::ErrorResponse(error)) => {
                Err(ReflectionError::Refused { what: what.to_owned(), message: error.error_message })
            }
            Some(response) => Ok(response),
            None => Err(ReflectionError::Unexpected),
        }
    }
}
