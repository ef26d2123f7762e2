//! The promises about Pipe. Where a plugin has no such method, each says that it is skipped.

use std::io::Write;
use std::time::Duration;

use cache_proto::get_response::Outcome;
use cache_proto::{GetResponse, MAX_BATCH_KEYS, PipeRequest, SetRequest};
use tonic::Code;

use crate::promises::{entry, get, value};
use crate::{Pipe, Plugin};

/// A stream, unless the plugin does not implement Pipe, which it says in any stream.
async fn stream(plugin: &Plugin, promise: &str) -> Option<Pipe> {
    match plugin.pipe().rest().await {
        Ok(answers) => {
            assert_eq!(answers, [], "nothing was asked for");
            Some(plugin.pipe())
        }
        Err(status) if status.code() == Code::Unimplemented => {
            // Not by a macro, whose output is kept back for tests that pass.
            let _ = writeln!(std::io::stderr(), "skipped: {promise}: the plugin does not implement Pipe");
            None
        }
        Err(status) => panic!("a stream without a batch has ended with {status:?}"),
    }
}

/// Lookups.
fn gets(batch: u64, gets: &[&str]) -> PipeRequest {
    PipeRequest { batch, gets: gets.iter().map(|&key| key.into()).collect(), sets: vec![] }
}

/// Stores.
fn sets(batch: u64, sets: Vec<SetRequest>) -> PipeRequest {
    PipeRequest { batch, gets: vec![], sets }
}

/// The values of an answer.
fn values(gets: Vec<GetResponse>) -> Vec<Option<Vec<u8>>> {
    gets.into_iter().map(|get| value(get.outcome.expect("each of the keys is right"))).collect()
}

fn found(value: &str) -> Option<Vec<u8>> {
    Some(value.into())
}

#[expect(missing_docs, reason = "their names say it")]
mod named {
    use super::*;

    pub async fn a_batch_of_a_stream_keeps_its_number_order_and_repetitions(plugin: &Plugin) {
        const PROMISE: &str = "a_batch_of_a_stream_keeps_its_number_order_and_repetitions";
        let Some(mut pipe) = stream(plugin, PROMISE).await else { return };
        let entries = vec![entry("a", "1", None), entry("é\0", "2", None), entry("a", "3", None)];
        let stored = pipe.ask(sets(7, entries)).await;
        assert_eq!((stored.gets, stored.set_errors), (vec![], vec![]));
        let looked_up = pipe.ask(gets(u64::MAX, &["é\0", "none", "a", "é\0"])).await;
        assert_eq!(looked_up.set_errors, []);
        assert_eq!(values(looked_up.gets), [found("2"), None, found("3"), found("2")]);
        // What is stored in one way is there in the other.
        assert_eq!(get(plugin, "a").await, found("3"));
        plugin.set(entry("a", "4", None)).await.expect("it is within the limits");
        let both = PipeRequest { sets: vec![entry("b", "5", None)], ..gets(1, &["a"]) };
        assert_eq!(values(pipe.ask(both).await.gets), [found("4")]);
        assert_eq!(values(pipe.ask(gets(2, &["b"])).await.gets), [found("5")]);

        let many: Vec<_> = (0..MAX_BATCH_KEYS).map(|n| n.to_string()).collect();
        let entries = many.iter().map(|key| entry(key, key.as_str(), None)).collect();
        assert_eq!(pipe.ask(sets(3, entries)).await.set_errors, []);
        let all = pipe.ask(PipeRequest { batch: 4, gets: many.clone(), sets: vec![] }).await;
        assert!(values(all.gets).into_iter().eq(many.into_iter().map(|key| Some(key.into_bytes()))));
        assert_eq!(pipe.rest().await.expect("the stream ends with OK"), []);
    }

    pub async fn a_wrong_key_or_entry_of_a_stream_is_refused_alone(plugin: &Plugin) {
        const PROMISE: &str = "a_wrong_key_or_entry_of_a_stream_is_refused_alone";
        let Some(mut pipe) = stream(plugin, PROMISE).await else { return };
        let long = "k".repeat(251);
        let large = entry("large", vec![0; (1 << 20) + 1], None);
        let over = entry("over", "v", Some(Duration::ZERO));
        let entries = vec![
            entry("", "v", None),
            entry("a", "1", None),
            entry(&long, "v", None),
            large,
            over,
            entry("b", "2", None),
        ];
        let mut errors = pipe.ask(sets(1, entries)).await.set_errors;
        errors.sort_by_key(|error| error.index);
        let codes: Vec<_> = errors.iter().map(|error| (error.index, Code::from(error.code))).collect();
        assert_eq!(codes, [0, 2, 3, 4].map(|index| (index, Code::InvalidArgument)), "{errors:?}");

        let results = pipe.ask(gets(2, &["", "a", &long, "large", "over", "", "b"])).await.gets;
        let outcomes: Vec<_> = results.into_iter().map(|result| result.outcome.map(value)).collect();
        let none = Some(None);
        assert_eq!(
            outcomes,
            [None, Some(found("1")), None, none.clone(), none, None, Some(found("2"))],
            "one for each key, with neither hit nor miss for those that are wrong"
        );
        let all_wrong = pipe.ask(gets(3, &["", &long])).await.gets;
        assert_eq!(all_wrong, vec![GetResponse { outcome: None }; 2], "they have not failed");
        assert_eq!(pipe.rest().await.expect("the stream ends with OK"), []);
    }

    pub async fn an_empty_batch_of_a_stream_is_answered(plugin: &Plugin) {
        const PROMISE: &str = "an_empty_batch_of_a_stream_is_answered";
        let Some(mut pipe) = stream(plugin, PROMISE).await else { return };
        for batch in [1, 2] {
            let answer = pipe.ask(gets(batch, &[])).await;
            assert_eq!((answer.gets, answer.set_errors), (vec![], vec![]));
        }
        assert_eq!(pipe.rest().await.expect("the stream ends with OK"), []);
    }

    pub async fn many_batches_of_a_stream_are_answered_once_each_before_it_ends(plugin: &Plugin) {
        const PROMISE: &str = "many_batches_of_a_stream_are_answered_once_each_before_it_ends";
        const BATCHES: u64 = 500;
        let Some(pipe) = stream(plugin, PROMISE).await else { return };
        plugin.set(entry("there", "1", None)).await.expect("it is within the limits");
        let key = |batch: u64| format!("of {batch}");
        // Backwards: numbers are for the host to choose.
        for batch in (0..BATCHES).rev() {
            pipe.send(match batch % 2 {
                0 => gets(batch, &["there", "none", &key(batch)]),
                _ => sets(batch, vec![entry(&key(batch), batch.to_string(), None), entry("", "", None)]),
            });
        }
        let mut answers = pipe.rest().await.expect("the stream ends with OK");
        answers.sort_by_key(|answer| answer.batch);
        let numbers = answers.iter().map(|answer| answer.batch);
        assert!(numbers.eq(0..BATCHES), "{} answers, not one for each of {BATCHES} batches", answers.len());
        for answer in answers {
            let errors: Vec<_> = answer.set_errors.iter().map(|error| error.index).collect();
            match answer.batch % 2 {
                0 => assert_eq!((values(answer.gets), errors), (vec![found("1"), None, None], vec![])),
                _ => assert_eq!((answer.gets, errors), (vec![], vec![1])),
            }
        }
        let stored = (1..BATCHES).step_by(2);
        let results = plugin.get_many(stored.clone().map(key).collect()).await.expect("an answer");
        assert!(results.into_iter().map(value).eq(stored.map(|batch| found(&batch.to_string()))));
    }

    pub async fn an_answer_on_a_stream_fits_into_one_message(plugin: &Plugin) {
        const PROMISE: &str = "an_answer_on_a_stream_fits_into_one_message";
        let Some(mut pipe) = stream(plugin, PROMISE).await else { return };
        let large = entry("large", vec![0; 1 << 20], None);
        assert_eq!(pipe.ask(sets(1, vec![large, entry("empty", "", None)])).await.set_errors, []);
        let results = values(pipe.ask(gets(2, &["large", "large", "large", "large", "empty"])).await.gets);
        assert!(results[..3].iter().all(|value| value.as_ref().is_some_and(|value| value.len() == 1 << 20)));
        assert_eq!(results[3..], [None, Some(vec![])]);
        for (batch, key) in (3..).zip(["large", "empty", "none"]) {
            let results = pipe.ask(gets(batch, &[key; MAX_BATCH_KEYS])).await.gets;
            assert_eq!(results.len(), MAX_BATCH_KEYS);
        }
        // The texts of errors are the smallest part of it.
        let errors = pipe.ask(sets(6, vec![entry("", "", None); MAX_BATCH_KEYS])).await.set_errors;
        assert_eq!(errors.len(), MAX_BATCH_KEYS);
        assert_eq!(pipe.rest().await.expect("the stream ends with OK"), []);
    }
}

pub use named::*;

/// A batch with one key, for promises that hold in each way there is to look a key up.
pub(crate) async fn look_up(plugin: &Plugin, key: &str) -> Option<Outcome> {
    let pipe = plugin.pipe();
    pipe.send(gets(1, &[key]));
    match pipe.rest().await {
        Ok(answers) => {
            let results = answers.into_iter().flat_map(|answer| answer.gets);
            results.map(|result| result.outcome.expect("the key is right")).next()
        }
        Err(status) if status.code() == Code::Unimplemented => None,
        Err(status) => panic!("a lookup has ended its stream: {status:?}"),
    }
}
