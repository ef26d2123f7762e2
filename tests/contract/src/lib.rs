//! One suite over every cache plugin: each promise of the contract is a test here, which a plugin's own tests run
//! against its process.
//!
//! ```text
//! // In the tests of a plugin. `start` is given the name of the test, and gives a running plugin with an empty cache and
//! // whatever has to live as long, or `None` where it cannot run.
//! cache_contract::tests!(start);
//! // With `--max-age=1m`.
//! cache_contract::tests!(start_with_leases: a_lease_is_a_minute_if_asked_for_and_no_longer_than_its_entry);
//! ```
//!
//! What the contract leaves open is left open: whether a plugin tells why it misses, how coarse its times are, what it
//! drops when. It has room for all that the tests store. A plugin without Pipe keeps the promises about it by saying so: a
//! line `skipped: NAME` on stderr tells that it was not asked.

mod pipe;
mod plugin;
mod promises;
mod streams;

pub use pipe::Pipe;
pub use plugin::Plugin;
pub use promises::*;
pub use streams::*;
/// For the tests that [`tests!`] makes.
#[doc(hidden)]
pub use tokio;

/// Makes a test of each promise, with a plugin from `$start`, an `async fn(&str) -> Option<(Plugin, T)>`.
#[macro_export]
macro_rules! tests {
    ($start:path) => {
        $crate::tests! { $start:
            a_value_comes_back_byte_for_byte,
            a_set_replaces_value_and_time,
            an_entry_is_gone_when_its_time_is_over,
            any_time_of_the_contract_can_be_stored,
            a_broken_limit_is_an_invalid_argument_and_changes_nothing,
            a_batch_of_more_than_the_most_is_an_invalid_argument_and_changes_nothing,
            batches_keep_order_and_repetitions_and_the_later_entry_wins,
            an_answer_to_many_keys_fits_into_one_message,
            delete_counts_what_was_there,
            flush_removes_everything_before_it_answers,
            stats_count_what_was_looked_up,
            a_get_sees_the_set_that_was_answered_before,
            nothing_is_leased_unless_asked_for,
            a_batch_of_a_stream_keeps_its_number_order_and_repetitions,
            a_wrong_key_or_entry_of_a_stream_is_refused_alone,
            an_empty_batch_of_a_stream_is_answered,
            many_batches_of_a_stream_are_answered_once_each_before_it_ends,
            an_answer_on_a_stream_fits_into_one_message,
        }
    };
    ($start:path: $($promise:ident),* $(,)?) => {
        $(
            #[test]
            fn $promise() {
                let run_time = $crate::tokio::runtime::Builder::new_current_thread().enable_all().build();
                run_time.expect("a run time can be made").block_on(async {
                    let Some((plugin, _around)) = $start(stringify!($promise)).await else { return };
                    $crate::$promise(&plugin).await;
                    plugin.end().await;
                });
            }
        )*
    };
}
