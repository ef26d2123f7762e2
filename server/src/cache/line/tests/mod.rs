use std::time::Duration;

use tokio::time;

mod known;
mod parts;
pub(super) mod peer;
mod sockets;

/// Waits until it is so.
async fn until(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            time::sleep(Duration::from_millis(1)).await;
        }
    };
    time::timeout(Duration::from_secs(30), wait).await.expect("it never comes to be so");
}
