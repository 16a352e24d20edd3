//! Questions to whichever server has the answer, as long as that takes.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use redis::ServerErrorKind::{Ask, Moved, NoScript, ReadOnly, TryAgain};
use redis::{Cmd, Value};
use tokio::time::{Instant, sleep, timeout_at};

use super::Core;
use super::keep::Role;
use super::link::{Failure, Line, value};
use super::node::Node;
use super::script::Call;
use super::slot::Slot;
use super::written::Written;
use crate::config::ServerAddress;
use crate::store::StoreError;

/// How often one question is sent elsewhere, or comes too early, before that is the answer.
const DETOURS: u8 = 32;

/// Before a question is asked that came too early.
const TOO_EARLY: Duration = Duration::from_millis(8);

/// What is asked. Both may be asked twice; of a script's call it is told whether it was.
#[derive(Clone, Copy)]
pub(super) enum Question<'a> {
    Command(&'a Cmd),
    Script(&'a Call<'a>),
}

pub(super) struct Answer {
    /// As it came; no refusal.
    pub raw: Bytes,
    pub asked_at: Instant,
    pub line: Arc<Line>,
    pub node: Arc<Node>,
    /// Whether it is from a server that does not have the slot yet.
    pub in_passing: bool,
    /// Whether it was asked before and that answer was lost.
    pub was_lost: bool,
}

/// A question on its way.
struct Errand<'a> {
    question: Question<'a>,
    role: Role,
    slot: Slot,
    deadline: Instant,
    /// Until when the first answer is waited for, so that there is time for a second question.
    patience: Instant,
    by_text: bool,
    /// Whether it was asked before, here or by who asks now, and nobody heard the answer.
    was_lost: bool,
    repeated: bool,
    renewed: bool,
    detours: u8,
    /// A server that is about to have the slot.
    via: Option<ServerAddress>,
    /// What becomes of the cache, where it is a commit.
    written: Option<&'a Arc<Written>>,
}

impl Core {
    /// Asks a command that may be asked twice, of the server that has that key.
    pub(super) async fn ask(&self, key: &str, command: &Cmd, deadline: Instant) -> Result<Value, Failure> {
        let answer = self.answer(Role::Writes, Slot::of(key), Question::Command(command), deadline).await?;
        value(&answer.raw)
    }

    /// Calls a script that may be called twice, on the server that has that key, whether or not it knows the script.
    pub(super) async fn call(&self, key: &str, call: &Call<'_>, deadline: Instant) -> Result<Answer, Failure> {
        self.answer(Role::Writes, Slot::of(key), Question::Script(call), deadline).await
    }

    /// The same for a commit, which may have been asked before.
    pub(super) async fn call_commit(
        &self,
        call: &Call<'_>,
        written: &Arc<Written>,
        again: bool,
        deadline: Instant,
    ) -> Result<Answer, Failure> {
        let errand = Errand::new(Role::Writes, Slot::tagged(written.handle()), Question::Script(call), deadline);
        self.run(Errand { was_lost: again, written: Some(written), ..errand }).await
    }

    /// Asks, follows where a server says that another has the answer, and where a line breaks, asks once more.
    ///
    /// A question that was asked and not answered stays unanswered, whatever hinders the second.
    pub(super) async fn answer(
        &self,
        role: Role,
        slot: Slot,
        question: Question<'_>,
        deadline: Instant,
    ) -> Result<Answer, Failure> {
        self.run(Errand::new(role, slot, question, deadline)).await
    }

    async fn run(&self, mut errand: Errand<'_>) -> Result<Answer, Failure> {
        loop {
            let node = match self.servers.find(|| errand.slot) {
                Ok(node) => node,
                Err(error) => return Err(errand.failed(Failure::NoLine(error))),
            };
            match self.attempt(&errand, &node).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => self.consider(&mut errand, &node, failure).await?,
            }
        }
    }

    async fn attempt(&self, errand: &Errand<'_>, node: &Arc<Node>) -> Result<Answer, Failure> {
        let line = self.line(errand, node).await?;
        let asked_at = Instant::now();
        let command = errand.command();
        let raw = match errand.via {
            None => {
                let echo = errand.written.map(|written| written.echo(&line));
                line.ask_raw(&command, echo, errand.patience).await?
            }
            Some(_) => {
                let both = line.ask_all_raw(&[&redis::cmd("ASKING"), &command], errand.patience).await?;
                both.into_iter().next_back().unwrap_or_default()
            }
        };
        let (in_passing, was_lost) = (errand.via.is_some(), errand.was_lost);
        Ok(Answer { raw, asked_at, line, node: node.clone(), in_passing, was_lost })
    }

    /// The node's line; that of another where the question is asked in passing.
    async fn line(&self, errand: &Errand<'_>, node: &Arc<Node>) -> Result<Arc<Line>, Failure> {
        let node = match &errand.via {
            None => node.clone(),
            Some(address) => match self.servers.map().nodes.iter().find(|node| node.address == *address) {
                Some(node) => node.clone(),
                // One that has no slot yet is not in the map. Boxed, as it is rare and its state large: 2.5 KiB that every
                // question would have room for.
                None => return Box::pin(self.stranger(address, errand.patience)).await,
            },
        };
        let link = if errand.role == Role::Reads { &node.reads } else { &node.writes };
        link.line(errand.patience).await.map_err(Failure::NoLine)
    }

    async fn stranger(&self, address: &ServerAddress, patience: Instant) -> Result<Arc<Line>, Failure> {
        let unreachable = |reason| Failure::NoLine(StoreError::Unavailable(reason));
        match timeout_at(patience, self.dialer.connect(address, self.next_number(), None)).await {
            Ok(dialled) => dialled.map(Arc::new).map_err(|error| unreachable(error.reason())),
            Err(_) => Err(unreachable("the node that is to have this slot does not answer".into())),
        }
    }

    /// Decides whether a failure leaves something to try.
    async fn consider(&self, errand: &mut Errand<'_>, node: &Arc<Node>, failure: Failure) -> Result<(), Failure> {
        let now = Instant::now();
        errand.detours += 1;
        if now >= errand.deadline || errand.detours > DETOURS {
            return Err(errand.failed(failure));
        }
        let address = errand.via.take();
        match (&failure, failure.said()) {
            (Failure::Unanswered, _) if !errand.repeated => {
                (errand.was_lost, errand.repeated) = (true, true);
                errand.patience = errand.deadline;
            }
            (Failure::NoLine(StoreError::Timeout), _) => errand.patience = errand.deadline,
            (Failure::NoLine(_), _) if !self.servers.serves(errand.slot, node) => {}
            (_, Some(NoScript)) if !errand.by_text => errand.by_text = true,
            (_, Some(Moved)) => {
                let witness = failure.elsewhere(address.as_ref().unwrap_or(&node.address));
                self.servers.look_again(witness, errand.deadline).await;
            }
            (_, Some(Ask)) => errand.via = failure.elsewhere(&node.address),
            // The keys of one session are on their way from one server to another, and not all of them have arrived.
            (_, Some(TryAgain)) => sleep(TOO_EARLY).await,
            // It was the primary until now; the line is broken off, and the next may lead to another.
            (_, Some(ReadOnly)) if !errand.renewed => {
                errand.renewed = true;
                self.servers.doubt(None);
            }
            _ => return Err(errand.failed(failure)),
        }
        Ok(())
    }
}

impl<'a> Errand<'a> {
    fn new(role: Role, slot: Slot, question: Question<'a>, deadline: Instant) -> Self {
        let now = Instant::now();
        let patience = match question {
            Question::Command(_) => deadline,
            Question::Script(_) => now + deadline.saturating_duration_since(now) / 2,
        };
        let (by_text, was_lost, repeated, renewed) = (false, false, false, false);
        Self {
            question,
            role,
            slot,
            deadline,
            patience,
            by_text,
            was_lost,
            repeated,
            renewed,
            detours: 0,
            via: None,
            written: None,
        }
    }
    fn command(&self) -> Cow<'_, Cmd> {
        match self.question {
            Question::Command(command) => Cow::Borrowed(command),
            Question::Script(call) => Cow::Owned(call.command(self.by_text, self.was_lost)),
        }
    }

    fn failed(&self, failure: Failure) -> Failure {
        if self.was_lost { Failure::Unanswered } else { failure }
    }
}
