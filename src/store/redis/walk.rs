//! All sessions of an environment, in the order of their handles.

use std::sync::Arc;

use crate::handle::Handle;
use crate::store::StoreError;

use super::Core;
use super::node::Node;
use super::slot::Slot;

/// Keys that the server looks at in one step: some milliseconds in which it does nothing else.
const STEP: usize = 1000;

/// How often a cluster that changes meanwhile is gone through.
const ROUNDS: usize = 3;

impl Core {
    /// A page of the handles in byte order.
    ///
    /// The server knows no order, so that the first page collects all handles, 16 bytes each; the pages after it
    /// are of that collection, for as long as nobody else begins a walk and the last page was not reached.
    pub(super) async fn page(&self, after: Option<Handle>, limit: usize) -> Result<Vec<Handle>, StoreError> {
        let kept = self.walk.load_full().filter(|_| after.is_some());
        let all = match kept {
            Some(all) => all,
            None => {
                let all = Arc::new(self.collect().await?);
                self.walk.store(Some(all.clone()));
                all
            }
        };
        let begin = after.map_or(0, |after| all.partition_point(|handle| *handle <= after));
        let page: Vec<Handle> = all.iter().skip(begin).take(limit).copied().collect();
        if begin + page.len() >= all.len() {
            self.walk.store(None);
        }
        Ok(page)
    }

    /// Of all primaries; once more where one has joined or left meanwhile, for it may have had what was missed.
    async fn collect(&self) -> Result<Vec<Handle>, StoreError> {
        let mut handles = Vec::new();
        for _ in 0..ROUNDS {
            let map = self.servers.map();
            if map.nodes.is_empty() {
                self.servers.find(|| Slot(0))?;
            }
            for node in &map.nodes {
                self.collect_from(node, &mut handles).await?;
            }
            if Arc::ptr_eq(&map, &self.servers.map()) {
                break;
            }
        }
        handles.sort_unstable();
        handles.dedup();
        Ok(handles)
    }

    async fn collect_from(&self, node: &Node, handles: &mut Vec<Handle>) -> Result<(), StoreError> {
        let mut cursor = "0".to_owned();
        loop {
            let mut step = redis::cmd("SCAN");
            step.arg(&cursor).arg("MATCH").arg(self.keys.every_session()).arg("COUNT").arg(STEP);
            let deadline = self.deadline();
            let answer = node.writes.line(deadline).await?.ask(&step, deadline).await?;
            let unreadable = |_| StoreError::Unavailable("the server's list of keys cannot be read".into());
            let (next, keys): (String, Vec<Vec<u8>>) = redis::from_redis_value(answer).map_err(unreadable)?;
            handles.extend(keys.iter().filter_map(|key| self.keys.handle_in(std::str::from_utf8(key).ok()?)));
            cursor = next;
            if cursor == "0" {
                return Ok(());
            }
        }
    }
}
