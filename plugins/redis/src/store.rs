//! Entries as Redis keeps them: which commands say what is wanted, and what the replies mean.

use std::time::Duration;

use bytes::Bytes;
use cache_proto::{Entry, MAX_MESSAGE_BYTES};
use redis::{Cmd, Pipeline, Value};

use crate::fault::Fault;
use crate::link::Link;

/// All keys with a prefix, in the Redis at the end of a link.
pub(crate) struct Store {
    link: Link,
    prefix: Prefix,
}

/// What the names of all entries begin with.
#[derive(Debug, Clone)]
pub(crate) struct Prefix(String);

/// An entry that is there.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) value: Bytes,
    /// `None`: it never expires.
    pub(crate) remaining: Option<Duration>,
}

impl Store {
    pub(crate) fn new(link: Link, prefix: Prefix) -> Self {
        Self { link, prefix }
    }

    /// Looks keys up, one result for each: in one round trip, unless they are very many. What would not fit into one
    /// message of the contract is not read, and is a miss.
    pub(crate) async fn get(&self, keys: &[String]) -> Result<Vec<Option<Found>>, Fault> {
        let mut results = Vec::with_capacity(keys.len());
        let mut room = MAX_MESSAGE_BYTES;
        for keys in keys.chunks(READ_KEYS) {
            let mut call = redis::cmd("EVAL");
            call.arg(LOOK_UP).arg(keys.len());
            for key in keys {
                call.arg(self.prefix.name(key));
            }
            call.arg(room);
            let found = found(keys.len(), self.execute(call).await?)?;
            let read = found.iter().flatten().map(|found| found.value.len()).sum();
            // The script sees to it that it does.
            room = room.checked_sub(read).ok_or(Fault::Nonsense)?;
            results.extend(found);
        }
        Ok(results)
    }

    /// Stores entries, in their order, and gives one result for each.
    pub(crate) async fn set(&self, entries: &[Entry]) -> Vec<Result<(), Fault>> {
        if entries.is_empty() {
            return Vec::new();
        }
        let mut commands = Pipeline::with_capacity(entries.len());
        for entry in entries {
            self.set_command(&mut commands, entry);
        }
        let replies = match self.link.execute(&commands).await {
            Ok(replies) => replies,
            Err(fault) => return vec![Err(fault); entries.len()],
        };
        let mut results: Vec<_> = replies.into_iter().map(stored).collect();
        self.notice(&results);
        self.forget_left_out(entries, &mut results).await;
        results
    }

    /// Looks into the first fault of stores, if there is one: to be full is none.
    fn notice(&self, results: &[Result<(), Fault>]) {
        let mut faults = results.iter().filter_map(|result| result.as_ref().err());
        if let Some(fault) = faults.find(|fault| **fault != Fault::Full) {
            self.link.notice(fault.clone());
        }
    }

    /// Removes what Redis had no room for: a cache may forget, but not remember what has been replaced.
    async fn forget_left_out(&self, entries: &[Entry], results: &mut [Result<(), Fault>]) {
        let left_out = entries.iter().zip(results).filter(|(_, result)| **result == Err(Fault::Full));
        let (keys, results): (Vec<_>, Vec<_>) =
            left_out.map(|(entry, result)| (entry.key.clone(), result)).unzip();
        if keys.is_empty() {
            return;
        }
        tracing::debug!(entries = keys.len(), "Redis has no room");
        let removed = self.delete(&keys).await.map(drop);
        for result in results {
            result.clone_from(&removed);
        }
    }

    fn set_command(&self, commands: &mut Pipeline, Entry { key, value, ttl }: &Entry) {
        let name = self.prefix.name(key);
        match ttl.map(whole_millis) {
            None => commands.cmd("SET").arg(name).arg(&value[..]),
            // Redis knows no shorter time than a millisecond, and more than was asked for must not be stored.
            Some(0) => commands.cmd("UNLINK").arg(name),
            Some(millis) => commands.cmd("SET").arg(name).arg(&value[..]).arg("PX").arg(millis),
        };
    }

    /// Removes keys, and says how many of them were there.
    pub(crate) async fn delete(&self, keys: &[String]) -> Result<u64, Fault> {
        if keys.is_empty() {
            return Ok(0);
        }
        let mut call = redis::cmd("UNLINK");
        for key in keys {
            call.arg(self.prefix.name(key));
        }
        match self.execute(call).await? {
            Value::Int(removed) => u64::try_from(removed).map_err(|_| Fault::Nonsense),
            _ => Err(Fault::Nonsense),
        }
    }

    /// Removes all keys with the prefix that are there now. They are looked for among all keys of the database, some at
    /// a time, so that Redis has time for others in between.
    pub(crate) async fn clear(&self) -> Result<(), Fault> {
        let pattern = self.prefix.pattern();
        let mut cursor = b"0".to_vec();
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(&cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(SCAN_KEYS);
            let (next, names) = scanned(self.execute(scan).await?).ok_or(Fault::Nonsense)?;
            if !names.is_empty() {
                let mut unlink = redis::cmd("UNLINK");
                unlink.arg(names);
                self.execute(unlink).await?;
            }
            if next == b"0" {
                return Ok(());
            }
            cursor = next;
        }
    }

    /// One command; an error reply is an error.
    async fn execute(&self, command: Cmd) -> Result<Value, Fault> {
        let mut commands = Pipeline::with_capacity(1);
        commands.add_command(command);
        match self.link.execute(&commands).await?.pop() {
            Some(Value::ServerError(error)) => Err(self.link.notice(error.into())),
            reply => reply.ok_or(Fault::Nonsense),
        }
    }
}

impl Prefix {
    /// Checks a prefix from the command line.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text.len() {
            // Without one, flushing the cache would empty the database.
            0 => Err("must not be empty".to_owned()),
            1..=MAX_PREFIX_BYTES => Ok(Self(text.to_owned())),
            length => Err(format!("is {length} bytes, must be at most {MAX_PREFIX_BYTES}")),
        }
    }

    fn name(&self, key: &str) -> String {
        [&self.0, key].concat()
    }

    /// What SCAN takes for all names that begin with it, whatever it is made of.
    fn pattern(&self) -> String {
        let mut pattern = String::with_capacity(self.0.len() + 1);
        for character in self.0.chars() {
            if matches!(character, '*' | '?' | '[' | ']' | '\\') {
                pattern.push('\\');
            }
            pattern.push(character);
        }
        pattern.push('*');
        pattern
    }
}

/// What Redis says of one command that stores.
fn stored(reply: Value) -> Result<(), Fault> {
    match reply {
        Value::ServerError(error) => Err(error.into()),
        _ => Ok(()),
    }
}

/// What [`LOOK_UP`] says of `count` keys. Of the last ones it says nothing if there was no room for them.
fn found(count: usize, reply: Value) -> Result<Vec<Option<Found>>, Fault> {
    let Value::Array(parts) = reply else { return Err(Fault::Nonsense) };
    let Ok([Value::Array(values), Value::Array(times)]) = <[Value; 2]>::try_from(parts) else {
        return Err(Fault::Nonsense);
    };
    if values.len() != times.len() || values.len() > count {
        return Err(Fault::Nonsense);
    }
    let found = values.into_iter().zip(times).map(|(value, millis)| entry(value, millis));
    let mut found: Vec<_> = found.collect::<Result<_, _>>()?;
    found.resize_with(count, || None);
    Ok(found)
}

fn entry(value: Value, millis: Value) -> Result<Option<Found>, Fault> {
    let value = match value {
        Value::BulkString(value) => Bytes::from(value),
        // Not there, of another type than a string, or too large for what room was left.
        Value::Nil => return Ok(None),
        _ => return Err(Fault::Nonsense),
    };
    match millis {
        Value::Int(-1) => Ok(Some(Found { value, remaining: None })),
        // It has just expired.
        Value::Int(..=0) => Ok(None),
        Value::Int(millis) => {
            let remaining = Some(Duration::from_millis(millis.unsigned_abs()));
            Ok(Some(Found { value, remaining }))
        }
        _ => Err(Fault::Nonsense),
    }
}

/// The next cursor and the names in the reply to SCAN.
fn scanned(reply: Value) -> Option<(Vec<u8>, Vec<Vec<u8>>)> {
    let bytes = |value| match value {
        Value::BulkString(bytes) => Some(bytes),
        _ => None,
    };
    let Value::Array(parts) = reply else { return None };
    let [cursor, names]: [Value; 2] = parts.try_into().ok()?;
    let Value::Array(names) = names else { return None };
    Some((bytes(cursor)?, names.into_iter().map(bytes).collect::<Option<_>>()?))
}

/// The longest time of the contract is 3.2e14 ms.
fn whole_millis(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)
}

/// Values and the milliseconds that they have left: the latter in the same breath, as a value must not be given the time
/// that was set together with a later one. A transaction would do as well, but Redis refuses to queue one when it is full,
/// and would reply with all values, however large. Reads sixteen at a time, so that it does not read much in vain.
const LOOK_UP: &str = "\
local room, full, values, left = tonumber(ARGV[1]), false, {}, {}
for first = 1, #KEYS, 16 do
  local some = redis.call('MGET', unpack(KEYS, first, math.min(first + 15, #KEYS)))
  for i, value in ipairs(some) do
    local at = first + i - 1
    if value and #value > room then
      full, value = true, false
    end
    if value then
      room = room - #value
      left[at] = redis.call('PTTL', KEYS[at])
    else
      left[at] = -2
    end
    values[at] = value
  end
  if full then break end
end
return {values, left}";

/// How many keys are looked up in one go, during which Redis does nothing else: about a millisecond. More than a host
/// asks for at a time under any usual load.
const READ_KEYS: usize = 1000;

/// The most bytes of a prefix: as many as of a key.
const MAX_PREFIX_BYTES: usize = 250;

/// How many keys Redis looks at in one go: some hundred microseconds.
const SCAN_KEYS: u32 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        Prefix::parse(text).expect("a prefix")
    }

    #[test]
    fn a_pattern_means_its_prefix_and_nothing_else() {
        for (text, pattern) in [("fib:", "fib:*"), ("a*b?c", "a\\*b\\?c*"), ("[x]\\é", "\\[x\\]\\\\é*")] {
            assert_eq!(prefix(text).pattern(), pattern);
        }
        assert!(Prefix::parse("").is_err());
        assert!(Prefix::parse(&"p".repeat(251)).is_err());
    }

    #[test]
    fn replies_are_hits_and_misses() {
        let value = || Value::BulkString(b"v".to_vec());
        let hit = |remaining| Ok(Some(Found { value: "v".into(), remaining }));
        for (value, millis, expected) in [
            (value(), -1, hit(None)),
            (value(), 1, hit(Some(Duration::from_millis(1)))),
            (value(), i64::MAX, hit(Some(Duration::from_millis(i64::MAX.unsigned_abs())))),
            (value(), 0, Ok(None)),
            (value(), -2, Ok(None)),
            (Value::Nil, -2, Ok(None)),
            (Value::Nil, -1, Ok(None)),
            (Value::Int(3), -1, Err(Fault::Nonsense)),
        ] {
            assert_eq!(entry(value, Value::Int(millis)), expected);
        }
        assert_eq!(entry(value(), Value::Nil), Err(Fault::Nonsense));
    }

    #[test]
    fn replies_of_another_form_are_nonsense() {
        let values = |count| Value::Array(vec![Value::Nil; count]);
        let times = |count| Value::Array(vec![Value::Int(-2); count]);
        assert_eq!(found(2, Value::Array(vec![values(2), times(2)])), Ok(vec![None, None]));
        assert_eq!(found(2, Value::Array(vec![values(1), times(1)])), Ok(vec![None, None]));
        for parts in [
            vec![values(1), times(2)],
            vec![values(2), times(1)],
            vec![values(3), times(3)],
            vec![values(2)],
            vec![values(2), Value::Nil],
            vec![values(2), times(2), Value::Nil],
        ] {
            assert_eq!(found(2, Value::Array(parts)), Err(Fault::Nonsense));
        }
        assert_eq!(found(0, Value::Nil), Err(Fault::Nonsense));
    }
}
