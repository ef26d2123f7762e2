//! Descriptions from the plugin itself.

use std::collections::BTreeMap;

use prost_reflect::DescriptorPool;
use prost_types::FileDescriptorProto;
use tonic::transport::Channel;

use super::SchemaError;
use crate::limits::MAX_DESCRIPTOR_FILES;
use crate::reflection::{Reflection, ReflectionError};

/// Asks the plugin for the file that declares `service`, and for all that this file needs.
pub(crate) async fn reflect(channel: Channel, service: &str) -> Result<DescriptorPool, SchemaError> {
    let (mut reflection, services) = Reflection::open(channel).await?.ok_or(SchemaError::NoReflection)?;
    if !services.iter().any(|name| name == service) {
        return Err(SchemaError::NotDescribed { service: service.to_owned(), known: services });
    }
    let mut files = Files::default();
    files.add(reflection.declaring(service).await?);
    while let Some(missing) = files.missing() {
        if files.0.len() > MAX_DESCRIPTOR_FILES {
            return Err(SchemaError::TooManyFiles { service: service.to_owned() });
        }
        files.add(fetch(&mut reflection, &missing).await?);
    }
    files.into_pool()
}

async fn fetch(reflection: &mut Reflection, name: &str) -> Result<Vec<FileDescriptorProto>, ReflectionError> {
    match reflection.named(name).await {
        Ok(sent) if sent.iter().any(|file| file.name() == name) => Ok(sent),
        // Google's own files are the same everywhere, and some plugins do not have theirs to give.
        answer => match own(name) {
            Some(file) => Ok(vec![file]),
            None => Err(answer.err().unwrap_or(ReflectionError::Unexpected)),
        },
    }
}

fn own(name: &str) -> Option<FileDescriptorProto> {
    DescriptorPool::global().get_file_by_name(name).map(|file| file.file_descriptor_proto().clone())
}

/// Files by their names.
#[derive(Default)]
struct Files(BTreeMap<String, FileDescriptorProto>);

impl Files {
    fn add(&mut self, files: impl IntoIterator<Item = FileDescriptorProto>) {
        self.0.extend(files.into_iter().map(|file| (file.name().to_owned(), file)));
    }

    /// One that is imported and not there.
    fn missing(&self) -> Option<String> {
        let mut imported = self.0.values().flat_map(|file| &file.dependency);
        imported.find(|name| !self.0.contains_key(*name)).cloned()
    }

    fn into_pool(self) -> Result<DescriptorPool, SchemaError> {
        let mut pool = DescriptorPool::new();
        pool.add_file_descriptor_protos(self.0.into_values()).map_err(SchemaError::Descriptor)?;
        Ok(pool)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, imports: &[&str]) -> FileDescriptorProto {
        FileDescriptorProto {
            name: Some(name.to_owned()),
            syntax: Some("proto3".to_owned()),
            dependency: imports.iter().map(|import| (*import).to_owned()).collect(),
            ..FileDescriptorProto::default()
        }
    }

    #[test]
    fn what_is_imported_and_not_there_is_missing() {
        let mut files = Files::default();
        files.add([file("a", &["b", "google/protobuf/empty.proto"])]);
        assert_eq!(files.missing().as_deref(), Some("b"));
        files.add([file("b", &[])]);
        files.add(own(&files.missing().unwrap()));
        assert_eq!(files.missing(), None);
        assert_eq!(files.into_pool().unwrap().files().len(), 3);
    }
}
