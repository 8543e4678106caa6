//! What is computed, and how it is checked.

use std::hash::{DefaultHasher, Hasher as _};
use std::io::{self, Read};
use std::time::Duration;

use gemmesh_tests::integers::Integers;
use gemmesh_tests::matrices::Matrix;
use gemmesh_tests::node::{Api, Node};
use serde_json::json;

use crate::mesh::Mesh;

/// A result has come by then.
const TRANSFER_LIMIT: Duration = Duration::from_secs(300);

/// The kind of job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Integers of 62 bits.
    Int,
    /// Floats, reproducibly.
    F64,
}

impl Kind {
    /// How people call it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Int => "62-bit int",
            Kind::F64 => "reproducible f64",
        }
    }

    /// The edge that takes long enough unless the command says otherwise.
    pub fn edge(self) -> usize {
        match self {
            Kind::Int => 5_000,
            Kind::F64 => 6_000,
        }
    }

    /// The shortest undisturbed run that is a measurement.
    pub fn seconds_min(self) -> f64 {
        match self {
            Kind::Int => 10.0,
            Kind::F64 => 2.0,
        }
    }
}

/// The product that all jobs compute.
pub struct Product {
    operands: Operands,
    ids: [String; 2],
    /// Of the undisturbed run.
    pub seconds: f64,
    /// Of its result.
    digest: Digest,
}

enum Operands {
    Int([Integers; 2]),
    F64([Matrix; 2]),
}

/// Bytes and a hash of a result.
type Digest = (u64, u64);

impl Product {
    /// Gives the operands to the first node, and has the product computed once without trouble.
    ///
    /// # Panics
    /// When the result of that is wrong.
    pub fn new(kind: Kind, edge: usize, mesh: &Mesh) -> Self {
        let api = &mesh.nodes[0].api;
        let (operands, ids) = match kind {
            Kind::Int => {
                let pair = [1, 2].map(|seed| Integers::random(edge, edge, seed));
                let ids = pair.each_ref().map(|operand| api.matrix(&operand.npy()));
                (Operands::Int(pair), ids)
            }
            Kind::F64 => {
                let pair = [1, 2].map(|seed| Matrix::random(edge, edge, seed));
                let ids = pair.each_ref().map(|operand| api.matrix(&operand.npy()));
                (Operands::F64(pair), ids)
            }
        };
        let mut product = Self {
            operands,
            ids,
            seconds: 0.0,
            digest: (0, 0),
        };
        let job = product.submit(api);
        let status = api.done(&job);
        product.seconds = status["seconds"].as_f64().expect("a number");
        product.digest = product.checked(api, &job).expect("the undisturbed product");
        product
    }

    /// A job at a node; its id.
    pub fn submit(&self, api: &Api) -> String {
        let [a, b] = &self.ids;
        let reproducible = matches!(self.operands, Operands::F64(_));
        api.submit(&json!({"a": a, "b": b, "reproducible": reproducible}))
    }

    /// Checks the result of a job as each of these nodes gives it.
    ///
    /// # Errors
    /// Who gave what wrong.
    pub fn check<'a>(
        &self,
        nodes: impl Iterator<Item = &'a Node>,
        job: &str,
    ) -> Result<(), String> {
        for (at, node) in nodes.enumerate() {
            let digest = match at {
                0 => self.checked(&node.api, job),
                _ => self.read(&node.api, job, |mut result| {
                    io::copy(&mut result, &mut io::sink()).map_err(|error| error.to_string())?;
                    Ok(())
                }),
            };
            match digest {
                Ok(digest) if digest == self.digest => {}
                Ok(_) => return Err(format!("{} has other bytes", node.name)),
                Err(error) => return Err(format!("{}: {error}", node.name)),
            }
        }
        Ok(())
    }

    /// The digest of a result that is the product.
    fn checked(&self, api: &Api, job: &str) -> Result<Digest, String> {
        self.read(api, job, |result| {
            let mut bytes = Vec::new();
            let read = result.read_to_end(&mut bytes);
            read.map_err(|error| error.to_string())?;
            match &self.operands {
                Operands::Int([a, b]) => a.product_fault(b, &bytes).map_or(Ok(()), Err),
                Operands::F64([a, b]) => {
                    Matrix::from_npy(&bytes).assert_is_product(a, b);
                    Ok(())
                }
            }
        })
    }

    /// Lets `look` read the result of a job to its end.
    fn read(
        &self,
        api: &Api,
        job: &str,
        look: impl FnOnce(&mut Hashing<reqwest::blocking::Response>) -> Result<(), String>,
    ) -> Result<Digest, String> {
        let format = match self.operands {
            Operands::Int(_) => "csv",
            Operands::F64(_) => "npy",
        };
        let url = format!(
            "http://{}/api/jobs/{job}/result?format={format}",
            api.address
        );
        let client = reqwest::blocking::Client::builder()
            .timeout(TRANSFER_LIMIT)
            .no_proxy()
            .build()
            .map_err(|error| format!("{error:?}"))?;
        let response = client
            .get(url)
            .send()
            .map_err(|error| format!("{error:?}"))?;
        if response.status() != 200 {
            return Err(response.text().unwrap_or_default());
        }
        let mut result = Hashing {
            inner: response,
            hasher: DefaultHasher::new(),
            bytes: 0,
        };
        look(&mut result)?;
        Ok((result.bytes, result.hasher.finish()))
    }
}

/// Hashes what is read through it.
struct Hashing<R> {
    inner: R,
    hasher: DefaultHasher,
    bytes: u64,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.write(&buffer[..read]);
        self.bytes += read as u64;
        Ok(read)
    }
}
