//! Tokens: who holds one may do, once and soon, what it was made for.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use berth_types::{Error, Result};
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::time::Instant;

use crate::request::Request;

/// How long a token is good for.
const LIFE: Duration = Duration::from_secs(60);
/// The most tokens at one time.
const MOST: usize = 1000;

/// What the tokens that are out stand for.
#[derive(Default)]
pub(crate) struct Tokens(Mutex<Out>);

#[derive(Default)]
struct Out {
    requests: HashMap<String, Request>,
    /// By age, the oldest first. Used ones stay here until their time has passed.
    ends: VecDeque<(Instant, String)>,
}

impl Tokens {
    /// A new token, which nobody can guess.
    pub(crate) fn issue(&self, request: Request) -> Result<String> {
        let token = random()?;
        let now = Instant::now();
        let mut out = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        out.expire(now);
        if out.requests.len() >= MOST {
            return Err(Error::resource_exhausted(format!(
                "{MOST} streaming URLs wait to be used: use one, or wait a minute"
            )));
        }
        if out.ends.len() >= 2 * MOST {
            let Out { requests, ends } = &mut *out;
            ends.retain(|(_, token)| requests.contains_key(token));
        }
        out.ends.push_back((now + LIFE, token.clone()));
        out.requests.insert(token.clone(), request);
        Ok(token)
    }

    /// What a token stands for; it stands for nothing afterwards.
    pub(crate) fn redeem(&self, token: &str) -> Option<Request> {
        let mut out = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        out.expire(Instant::now());
        out.requests.remove(token)
    }
}

impl Out {
    fn expire(&mut self, now: Instant) {
        while let Some((_, token)) = self.ends.pop_front_if(|(end, _)| *end <= now) {
            self.requests.remove(&token);
        }
    }
}

fn random() -> Result<String> {
    let mut bytes = [0; 16];
    getrandom(&mut bytes, GetRandomFlags::empty())
        .map_err(|error| Error::io("the kernel gives no random bytes", error.into()))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::PortForwardRequest;

    fn request() -> Request {
        Request::PortForward(PortForwardRequest { pod: "p".parse().unwrap(), ports: Vec::new() })
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_good_once_and_for_a_minute() {
        let tokens = Tokens::default();
        let (one, other) = (tokens.issue(request()).unwrap(), tokens.issue(request()).unwrap());
        assert_ne!(one, other);
        assert_eq!(tokens.redeem(&one), Some(request()));
        assert_eq!(tokens.redeem(&one), None, "used");
        assert_eq!(tokens.redeem("AAAAAAAAAAAAAAAAAAAAAA"), None, "wrong");
        tokio::time::advance(LIFE).await;
        assert_eq!(tokens.redeem(&other), None, "expired");
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_that_nobody_uses_are_bounded_and_used_ones_do_not_count() {
        let tokens = Tokens::default();
        for _ in 0..10 * MOST {
            let token = tokens.issue(request()).unwrap();
            tokens.redeem(&token).unwrap();
        }
        assert!(tokens.0.lock().unwrap().ends.len() <= 2 * MOST);
        for _ in 0..MOST {
            tokens.issue(request()).unwrap();
        }
        tokens.issue(request()).unwrap_err();
        tokio::time::advance(LIFE).await;
        tokens.issue(request()).unwrap();
    }
}
