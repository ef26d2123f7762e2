//! The host as a process, which starts the plugin.

use std::time::Duration;

use tokio::process::Command;

#[tokio::test]
async fn the_host_calls_its_plugin_is_called_back_and_exchanges_it_with_what_it_knows() {
    // The host looks for it beside itself.
    assert!(env!("CARGO_BIN_EXE_kv-plugin").ends_with("kv-plugin"));
    let host = Command::new(env!("CARGO_BIN_EXE_kv-host")).kill_on_drop(true).output();
    let host = tokio::time::timeout(Duration::from_secs(120), host).await.expect("the host ends").unwrap();
    let stderr = String::from_utf8_lossy(&host.stderr);
    assert!(host.status.success(), "{stderr}");
    assert_eq!(
        String::from_utf8_lossy(&host.stdout),
        "secret: not to be written\n\
         greeting after a reload: hello\n\
         exit status 0\n",
        "{stderr}"
    );
}
