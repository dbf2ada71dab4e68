//! The client of a transfer, as the engine that does it sees it: told of steps over one stream, asked for credentials
//! over another.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use berth_core::{Login, Logins, Requester, TransferStep};
use berth_proto as proto;
use berth_types::{Error, Result};
use proto::containerd::types::transfer::{AuthRequest, AuthResponse, AuthType, Progress};
use proto::convert::signed;
use proto::prost_types::Any;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::time::{sleep, timeout};
use tonic::Status;

use crate::streaming::{Pipe, QUEUE, packed, unpacked};

/// A client that takes no step for so long is told nothing more.
pub(crate) const DEAF: Duration = Duration::from_secs(5);
/// How long a client may take to look for credentials: it may ask a program or somebody.
const LOGIN: Duration = Duration::from_mins(2);
/// containerd's clients take their answer for the end and drop what they have not yet looked at, the last steps among
/// it, by which nerdctl knows what it has loaded. So the answer comes a moment later.
const LAST: Duration = Duration::from_millis(20);

/// Who waits for a transfer.
pub(crate) struct Asker {
    /// Where steps go, if they are wanted.
    pub(crate) steps: Option<mpsc::Sender<Result<Any, Status>>>,
    pub(crate) deaf: AtomicBool,
    /// Closed with the call.
    pub(crate) present: watch::Receiver<()>,
    /// True once the daemon is told to stop.
    pub(crate) stop: watch::Receiver<bool>,
}

impl Asker {
    /// Gives the client the time to take the last steps.
    pub(crate) async fn last(&self) {
        let Some(steps) = &self.steps else { return };
        // Every place in the queue is free once every step has been taken.
        if matches!(timeout(DEAF, steps.reserve_many(QUEUE)).await, Ok(Ok(_))) {
            sleep(LAST).await;
        }
    }
}

#[async_trait]
impl Requester for Asker {
    fn listens(&self) -> bool {
        self.steps.is_some()
    }

    async fn tell(&self, step: TransferStep) {
        let Some(steps) = self.steps.as_ref().filter(|_| !self.deaf.load(Ordering::Relaxed)) else { return };
        let TransferStep { event, name, parents, progress, total, target } = step;
        let desc = target.map(Into::into);
        let (progress, total) = (signed(progress), signed(total));
        let message = packed(&Progress { event, name, parents, progress, total, desc });
        if !matches!(timeout(DEAF, steps.send(Ok(message))).await, Ok(Ok(()))) {
            self.deaf.store(true, Ordering::Relaxed);
        }
    }

    async fn gone(&self) {
        let (mut present, mut stop) = (self.present.clone(), self.stop.clone());
        // The senders change nothing before they go; that they go is the news.
        tokio::select! {
            _ = present.changed() => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }
}

/// A client that knows credentials, one question at a time.
pub(crate) struct Client {
    /// Nothing while a question is open, and once one was given up: an answer that came late would be taken for that
    /// to the next one, and credentials go to another host.
    pipe: Mutex<Option<Pipe>>,
    reference: String,
}

impl Client {
    /// Asks over a stream about an image.
    pub(crate) fn new(pipe: Pipe, reference: String) -> Self {
        Self { pipe: Mutex::new(Some(pipe)), reference }
    }

    async fn ask(&self, host: &str) -> Result<Option<AuthResponse>> {
        let gone = || Error::unavailable("the client that has the credentials has gone");
        let mut held = self.pipe.lock().await;
        let mut pipe = held.take().ok_or_else(gone)?;
        let question = AuthRequest {
            host: host.to_owned(),
            reference: self.reference.clone(),
            wwwauthenticate: Vec::new(),
        };
        pipe.outgoing.send(Ok(packed(&question))).await.map_err(|_| gone())?;
        let answer = pipe.incoming.message().await.map_err(|status| gone().caused_by(status))?;
        *held = Some(pipe);
        answer.map(unpacked).transpose()
    }
}

#[async_trait]
impl Logins for Client {
    async fn login(&self, host: &str) -> Result<Option<Login>> {
        let answer = timeout(LOGIN, self.ask(host)).await.map_err(|_| {
            Error::deadline_exceeded(format!("the client did not say in time who it is to {host}"))
        })??;
        Ok(answer.and_then(login))
    }
}

fn login(answer: AuthResponse) -> Option<Login> {
    let AuthResponse { auth_type, secret, username, .. } = answer;
    match AuthType::try_from(auth_type) {
        Ok(AuthType::Credentials) if !username.is_empty() => {
            Some(Login::Password { user: username, password: secret })
        }
        Ok(AuthType::Refresh) if !secret.is_empty() => Some(Login::Refresh(secret)),
        Ok(AuthType::Header) => secret.strip_prefix("Bearer ").map(|token| Login::Bearer(token.to_owned())),
        // A client without credentials answers with an empty refresh token.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(kind: AuthType, username: &str, secret: &str) -> AuthResponse {
        AuthResponse {
            auth_type: kind as i32,
            username: username.into(),
            secret: secret.into(),
            expire_at: None,
        }
    }

    #[test]
    fn an_answer_without_a_secret_is_no_login() {
        assert!(login(answer(AuthType::Refresh, "", "")).is_none());
        assert!(login(answer(AuthType::None, "a", "b")).is_none());
        assert!(login(AuthResponse { auth_type: 99, ..AuthResponse::default() }).is_none());
        let password = Login::Password { user: "a".into(), password: "b".into() };
        assert!(login(answer(AuthType::Credentials, "a", "b")) == Some(password));
        assert!(login(answer(AuthType::Refresh, "", "t")) == Some(Login::Refresh("t".into())));
        assert!(login(answer(AuthType::Header, "", "Bearer t")) == Some(Login::Bearer("t".into())));
        assert!(login(answer(AuthType::Header, "", "Basic t")).is_none());
    }
}
