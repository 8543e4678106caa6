//! People who submit jobs all the time, one at each device.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Barrier, Mutex};
use std::time::Duration;

use super::cases::{Cases, Product};
use crate::matrices::Random;
use crate::node::Api;
use crate::wait::within;

/// Jobs of each device that are submitted at once at the beginning.
const AT_ONCE: usize = 4;
/// Jobs of one device that have not ended, as far as it knows, before it waits.
const WINDOW: usize = 3;
/// How long a person waits for an answer before asking again.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long for a matrix to be stored.
const STORING: Duration = Duration::from_secs(30);
/// Between two questions that had no answer.
const PAUSE: Duration = Duration::from_millis(100);

/// A job that was acknowledged.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// Its id.
    pub job: String,
    /// What it is.
    pub product: Product,
    /// At which node it was submitted.
    pub node: usize,
}

/// What was submitted.
#[derive(Default)]
pub struct Load {
    accepted: Mutex<Vec<Accepted>>,
    ended: AtomicU64,
    unanswered: AtomicU64,
    refused: Mutex<Vec<String>>,
    stopped: AtomicBool,
}

impl Load {
    /// Jobs that were acknowledged so far.
    pub fn accepted(&self) -> Vec<Accepted> {
        self.accepted.lock().expect("no holder panics").clone()
    }

    /// How many were acknowledged, and how many of them were seen to end by those who submitted them.
    pub fn counts(&self) -> (usize, u64) {
        let accepted = self.accepted.lock().expect("no holder panics").len();
        (accepted, self.ended.load(Ordering::Relaxed))
    }

    /// Submissions that were refused although nothing is wrong with them.
    pub fn refused(&self) -> Vec<String> {
        self.refused.lock().expect("no holder panics").clone()
    }

    /// No more jobs.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    fn goes_on(&self) -> bool {
        !self.stopped.load(Ordering::Relaxed)
    }

    /// A person at the device of a node: some jobs at once with all others, then always some.
    pub fn feed(&self, cases: &Cases, api: &Api, node: usize, seed: u64, together: &Barrier) {
        let mut random = Random(seed ^ (0xfeed + node as u64));
        let mut stored = BTreeMap::new();
        let first: Vec<Product> = (0..AT_ONCE)
            .map(|_| cases.pick(node, &mut random))
            .collect();
        for product in &first {
            self.store(cases, api, *product, &mut stored);
        }
        together.wait();
        let mut open: Vec<String> = Vec::new();
        for product in first {
            open.extend(self.submit(cases, api, node, product, &mut stored));
        }
        while self.goes_on() {
            let before = open.len();
            open.retain(|job| !has_ended(api, job));
            let ended = (before - open.len()) as u64;
            self.ended.fetch_add(ended, Ordering::Relaxed);
            if open.len() < WINDOW {
                let product = cases.pick(node, &mut random);
                let submit = || self.submit(cases, api, node, product, &mut stored);
                open.extend(self.try_on(submit));
            } else {
                let path = format!("/api/jobs/{}?wait=1", open[0]);
                let ask = || api.within(PATIENCE).try_get(&path).ok();
                self.try_on(ask);
            }
        }
    }

    /// Asks a node that may be dead, or cut off, until it answers or nobody wants to know any more.
    fn try_on<T>(&self, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
        let answer = within(PATIENCE, PAUSE, || match self.goes_on() {
            true => ask().map(Some).ok_or_else(String::new),
            false => Ok(None),
        });
        answer.ok().flatten()
    }

    fn store(
        &self,
        cases: &Cases,
        api: &Api,
        product: Product,
        stored: &mut BTreeMap<usize, [String; 2]>,
    ) -> Option<[String; 2]> {
        if let Some(ids) = stored.get(&product.pair) {
            return Some(ids.clone());
        }
        let api = api.within(STORING);
        let mut ids = Vec::new();
        for body in cases.factors(product.pair) {
            let reply = api.request("PUT", "/api/matrices", &[], body);
            ids.push(self.answer(reply, 201)?["id"].as_str()?.to_owned());
        }
        let ids: [String; 2] = ids.try_into().ok()?;
        stored.insert(product.pair, ids.clone());
        Some(ids)
    }

    /// The job, if it was acknowledged.
    fn submit(
        &self,
        cases: &Cases,
        api: &Api,
        node: usize,
        product: Product,
        stored: &mut BTreeMap<usize, [String; 2]>,
    ) -> Option<String> {
        let ids = self.store(cases, api, product, stored)?;
        let headers = [("content-type", "application/json")];
        let body = Cases::request(product, &ids).to_string().into_bytes();
        let reply = api
            .within(STORING)
            .request("POST", "/api/jobs", &headers, body);
        let job = self.answer(reply, 202)?["job"].as_str()?.to_owned();
        let accepted = Accepted {
            job: job.clone(),
            product,
            node,
        };
        self.accepted
            .lock()
            .expect("no holder panics")
            .push(accepted);
        Some(job)
    }

    /// The answer to something that is fine. Without one nothing is promised.
    fn answer(
        &self,
        reply: Result<crate::node::Reply, String>,
        status: u16,
    ) -> Option<serde_json::Value> {
        match reply {
            Ok(reply) if reply.status == status => Some(reply.json()),
            Ok(reply) => {
                let mut refused = self.refused.lock().expect("no holder panics");
                refused.push(reply.text());
                None
            }
            Err(_) => {
                self.unanswered.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }
}

fn has_ended(api: &Api, job: &str) -> bool {
    let path = format!("/api/jobs/{job}");
    let Ok(reply) = api.within(PATIENCE).try_get(&path) else {
        return false;
    };
    let ended = ["done", "failed", "cancelled"];
    reply.status == 200 && ended.iter().any(|state| reply.json()["state"] == *state)
}
