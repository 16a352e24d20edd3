//! Asking sentinels who the primary is.

use std::time::Duration;

use redis::Value;
use tokio::time::Instant;

use super::dial::{Dialer, Ear, NoLine, Unusable, no_line};
use super::link::{Failure, Line};
use crate::config::ServerAddress;

/// How long one sentinel may take.
const PATIENCE: Duration = Duration::from_millis(500);

/// Where sentinels publish that another server is the primary.
const SWITCHES: &str = "+switch-master";

pub(super) struct Sentinels {
    /// The one that answered last comes first.
    addresses: Vec<ServerAddress>,
    service: String,
    line: Option<Line>,
}

impl Sentinels {
    pub fn new(addresses: Vec<ServerAddress>, service: String) -> Self {
        Self { addresses, service, line: None }
    }

    /// Where the service's primary is, by the first sentinel that knows.
    ///
    /// Sentinels also tell when that changes, and then the ear hears: until the old primary is told, it takes writes
    /// that will be lost.
    pub async fn primary(&mut self, dialer: &Dialer, ear: &Ear) -> Result<ServerAddress, NoLine> {
        if let Some(line) = &self.line
            && let Ok(Some(address)) = self.ask(line).await
        {
            return Ok(address);
        }
        self.line = None;
        let mut worst = NoLine::Unreachable("no sentinel can be reached".into());
        for place in 0..self.addresses.len() {
            let Some(sentinel) = self.addresses.get(place).cloned() else { break };
            match self.enter(&sentinel, dialer, ear).await {
                Ok((line, address)) => {
                    self.line = Some(line);
                    self.addresses.swap(0, place);
                    return Ok(address);
                }
                Err(NoLine::Unusable(unusable)) => worst = NoLine::Unusable(unusable),
                Err(NoLine::Unreachable(_)) => {}
            }
        }
        Err(worst)
    }

    /// Sentinels are asked by name and password only where they ask for it: often the servers alone do.
    async fn enter(
        &self,
        sentinel: &ServerAddress,
        dialer: &Dialer,
        ear: &Ear,
    ) -> Result<(Line, ServerAddress), NoLine> {
        for with_password in [false, true] {
            let line = match dialer.plain(with_password).connect(sentinel, 0, Some(ear.clone())).await {
                Err(NoLine::Unusable(_)) if !with_password => continue,
                line => line?,
            };
            match self.ask(&line).await {
                Ok(Some(_)) => {
                    line.subscribe(SWITCHES, Instant::now() + PATIENCE).await;
                    // Once more, for it may have changed before anybody would have heard.
                    if let Ok(Some(address)) = self.ask(&line).await {
                        return Ok((line, address));
                    }
                    break;
                }
                Ok(None) => {
                    let unknown = format!("the sentinels know no service of the name {}", self.service);
                    return Err(NoLine::Unusable(Unusable::server(unknown)));
                }
                Err(Failure::Refused(error)) if error.code() == Some("NOPERM") => {
                    let missing = "this user lacks the permission for SENTINEL GET-MASTER-ADDR-BY-NAME";
                    return Err(NoLine::Unusable(Unusable::server(missing)));
                }
                Err(Failure::Refused(error)) => return Err(no_line(&error)),
                Err(_) => break,
            }
        }
        Err(NoLine::Unreachable("it does not answer".into()))
    }

    async fn ask(&self, line: &Line) -> Result<Option<ServerAddress>, Failure> {
        let mut command = redis::cmd("SENTINEL");
        command.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.service);
        let answer = line.ask(&command, Instant::now() + PATIENCE).await?;
        if answer == Value::Nil {
            return Ok(None);
        }
        let (host, port): (String, u16) = redis::from_redis_value(answer).map_err(|_| Failure::Unanswered)?;
        Ok(Some(ServerAddress { host, port }))
    }
}
