//! The same with a cache plugin, as a host calls it that has nothing else to do.

use std::time::{Duration, Instant};

use cache_proto::cache_client::CacheClient;
use cache_proto::get_response::Outcome;
use cache_proto::{
    APP_VERSION, GetRequest, GetResponse, MAGIC_COOKIE_KEY, MAGIC_COOKIE_VALUE, PipeRequest, PipeResponse,
    SetRequest,
};
use futures_util::future::try_join_all;
use plugin_sdk::MagicCookie;
use plugin_sdk::host::{Contract, Launch, Plugin};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use crate::{Failure, IN_FLIGHT, Load, Way};

/// A plugin that runs, and what it is asked for.
struct Cache {
    plugin: Plugin,
    client: CacheClient<Channel>,
    load: Load,
    keys: Vec<String>,
}

impl Cache {
    async fn start(program: &str) -> Result<Self, Failure> {
        let cookie = MagicCookie::new(MAGIC_COOKIE_KEY, MAGIC_COOKIE_VALUE);
        let plugin = Launch::new(program, Contract::new(cookie, [APP_VERSION])).start().await?;
        let client = CacheClient::new(plugin.channel());
        Ok(Self { plugin, client, load: Load { batch: 0, value_bytes: 0 }, keys: Vec::new() })
    }

    async fn prepare(&mut self, load: Load) -> Result<(), Failure> {
        self.load = load;
        self.keys = load.keys().collect();
        for key in &self.keys {
            let value = vec![b'1'; load.value_bytes].into();
            self.client.set(SetRequest { key: key.clone(), value, ttl: None }).await?;
        }
        Ok(())
    }

    fn check(&self, answer: &GetResponse) -> Result<(), Failure> {
        match &answer.outcome {
            Some(Outcome::Hit(hit)) if hit.value.len() == self.load.value_bytes => Ok(()),
            _ => Err("the plugin has lost a value".into()),
        }
    }

    async fn end(self) {
        drop(self.client);
        self.plugin.shutdown().await;
    }
}

/// A batch is one message on a stream that stays open.
pub(crate) struct Pipe {
    cache: Cache,
    requests: mpsc::Sender<PipeRequest>,
    answers: Streaming<PipeResponse>,
    batches: u64,
}

impl Pipe {
    pub(crate) async fn start(program: &str) -> Result<Self, Failure> {
        let mut cache = Cache::start(program).await?;
        let (requests, outgoing) = mpsc::channel(IN_FLIGHT);
        let answers = cache.client.pipe(ReceiverStream::new(outgoing)).await?.into_inner();
        Ok(Self { cache, requests, answers, batches: 0 })
    }

    async fn send(&mut self) -> Result<(), Failure> {
        self.batches += 1;
        let request = PipeRequest { batch: self.batches, gets: self.cache.keys.clone(), sets: Vec::new() };
        Ok(self.requests.send(request).await?)
    }
}

impl Way for Pipe {
    async fn prepare(&mut self, load: Load) -> Result<(), Failure> {
        self.cache.prepare(load).await
    }

    async fn look_up(&mut self, time: Duration) -> Result<u64, Failure> {
        let begun = Instant::now();
        let mut keys = 0;
        for _ in 0..IN_FLIGHT {
            self.send().await?;
        }
        let mut in_flight = IN_FLIGHT;
        while in_flight > 0 {
            let answer = self.answers.message().await?.ok_or("the plugin has ended the stream")?;
            if answer.gets.len() != self.cache.load.batch {
                return Err("an answer lacks values".into());
            }
            answer.gets.iter().try_for_each(|get| self.cache.check(get))?;
            keys += answer.gets.len() as u64;
            if begun.elapsed() < time {
                self.send().await?;
            } else {
                in_flight -= 1;
            }
        }
        Ok(keys)
    }

    async fn end(self) {
        drop((self.requests, self.answers));
        self.cache.end().await;
    }
}

/// A key is one call.
pub(crate) struct Get(Cache);

impl Get {
    pub(crate) async fn start(program: &str) -> Result<Self, Failure> {
        Cache::start(program).await.map(Self)
    }
}

impl Way for Get {
    async fn prepare(&mut self, load: Load) -> Result<(), Failure> {
        self.0.prepare(load).await
    }

    async fn look_up(&mut self, time: Duration) -> Result<u64, Failure> {
        let begun = Instant::now();
        let callers = self.0.keys.iter().map(async |key| {
            let mut client = self.0.client.clone();
            let mut answered = 0;
            while begun.elapsed() < time {
                let answer = client.get(GetRequest { key: key.clone() }).await?;
                self.0.check(answer.get_ref())?;
                answered += 1;
            }
            Ok::<u64, Failure>(answered)
        });
        Ok(try_join_all(callers).await?.into_iter().sum())
    }

    async fn end(self) {
        self.0.end().await;
    }
}
