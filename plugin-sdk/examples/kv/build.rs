//! Makes the code of `kv.proto`.

use std::{env, error::Error, fs, path::Path};

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    // protox is a protobuf compiler in Rust. With protoc, `compile_protos` of tonic-prost-build does it in one call.
    let descriptors = protox::compile(["kv/v1/kv.proto"], ["proto"])?;
    // For gRPC reflection: tools can call the plugin without the .proto.
    fs::write(Path::new(&env::var("OUT_DIR")?).join("kv.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().build_transport(false).compile_fds(descriptors)?;
    Ok(())
}
