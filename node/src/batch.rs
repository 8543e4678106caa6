//! From a batch of products to durable jobs: its parts.
//!
//! Small products of one shape and type become one part, whose operands are written one below the
//! other ([`gemmesh_protocol::stack`]); a large product is a part by itself and nothing is copied. All
//! parts are made durable in one transaction. A product with which something is wrong is named and
//! left out, or its place in a stack is filled with zeros.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use gemmesh_protocol::batch::{
    BatchPart, ERROR_BYTES_MAX, FAILED_MAX, FailedProduct, PARTS_MAX, RUNS_MAX, Run, part_id,
};
use gemmesh_protocol::id::{BlockId, Epoch, JobId, MatrixId};
use gemmesh_protocol::job::JobHeader;
use gemmesh_protocol::matrix::{Dtype, ElementType, Manifest};
use gemmesh_protocol::plan;
use gemmesh_protocol::replication::Taken;
use gemmesh_protocol::stack::{Form, PRODUCTS_MAX, form};
use tokio::sync::oneshot;

use crate::app::{App, Submitted};
use crate::driver::Event;
use crate::error::ApiError;
use crate::files::Source as _;
use crate::files::memory::Memory;
use crate::needs;
use crate::os;
use crate::store::Piece;
use crate::submit;

/// The most bytes of a matrix of a stacked product: results are put together in memory.
const STACKED_BYTES_MAX: u64 = 4 << 20;

/// What a user asks for.
#[derive(Debug)]
pub struct BatchRequest {
    /// The products.
    pub products: Products,
    /// The element type; by default that of each product's operands.
    pub dtype: Option<Dtype>,
    /// The same bits whichever devices compute.
    pub reproducible: bool,
    /// A name for people.
    pub name: String,
}

/// The products of a batch.
#[derive(Debug)]
pub enum Products {
    /// Each by itself, or why one can not be computed.
    List(Vec<Result<[Operand; 2], ApiError>>),
    /// So many, one below the other in two stored matrices.
    Stacks {
        /// The stack of left factors.
        a: MatrixId,
        /// The stack of right factors.
        b: MatrixId,
        /// How many products.
        products: u32,
    },
}

/// A factor, with its manifest.
#[derive(Debug, Clone)]
pub enum Operand {
    /// Rows of a stored matrix.
    Stored(MatrixId, Arc<Manifest>, Range<u64>),
    /// In memory, and as it was sent.
    Values(Arc<Memory>, Arc<serde_json::Value>),
}

impl Operand {
    /// The whole of a stored matrix.
    pub fn stored(manifest: Arc<Manifest>) -> Self {
        Self::Stored(manifest.id(), manifest.clone(), 0..manifest.rows)
    }

    fn manifest(&self) -> &Manifest {
        match self {
            Self::Stored(_, manifest, _) => manifest,
            Self::Values(memory, _) => memory.manifest(),
        }
    }

    fn rows(&self) -> u64 {
        match self {
            Self::Stored(_, _, rows) => rows.end - rows.start,
            Self::Values(memory, _) => memory.manifest().rows,
        }
    }

    fn piece(&self) -> Piece {
        match self {
            Self::Stored(id, _, rows) => Piece::Stored(*id, rows.clone()),
            Self::Values(memory, _) => Piece::Values(memory.clone()),
        }
    }

    /// The id of the stored matrix that it is as a whole.
    fn whole(&self) -> Option<MatrixId> {
        match self {
            Self::Stored(id, manifest, rows) if *rows == (0..manifest.rows) => Some(*id),
            _ => None,
        }
    }

    async fn converted(self, app: &App, to: Dtype) -> Result<Self, ApiError> {
        match self {
            Self::Stored(id, manifest, rows) if manifest.element.dtype != to => {
                let manifest = app.store().convert(id, to).await?;
                Ok(Self::Stored(manifest.id(), Arc::new(manifest), rows))
            }
            Self::Values(memory, value) if memory.manifest().element.dtype != to => {
                let memory = submit::read_values(&value, Some(to))?;
                Ok(Self::Values(Arc::new(memory), value))
            }
            same => Ok(same),
        }
    }
}

/// One product, its factors of one element type.
#[derive(Debug, Clone)]
struct Product {
    index: u32,
    a: Operand,
    b: Operand,
}

/// What products of one part have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Kind {
    rows: u64,
    inner: u64,
    cols: u64,
    dtype: Dtype,
    /// Limbs of A, B and C.
    limbs: [u16; 3],
}

impl Kind {
    fn of(product: &Product) -> Result<Self, ApiError> {
        let (a, b) = (product.a.manifest(), product.b.manifest());
        let dtype = a.element.dtype;
        let c = submit::element_of_product(a, b, dtype)?;
        Ok(Self {
            rows: product.a.rows(),
            inner: a.cols,
            cols: b.cols,
            dtype,
            limbs: [a.element.limbs, b.element.limbs, c.limbs],
        })
    }

    fn form(&self) -> Form {
        let [a, b, c] = self.limbs.map(|limbs| ElementType {
            dtype: self.dtype,
            limbs,
        });
        Form {
            rows: self.rows,
            inner: self.inner,
            cols: self.cols,
            a,
            b,
            c,
        }
    }

    /// How many products of this kind a part may have.
    fn capacity(&self) -> usize {
        let form = self.form();
        let sizes = [
            (self.rows, self.inner, form.a),
            (self.inner, self.cols, form.b),
            (self.rows, self.cols, form.c),
        ];
        let small = sizes.iter().all(|&(rows, cols, element)| {
            let bytes = rows.saturating_mul(cols).saturating_mul(element.bytes());
            bytes <= STACKED_BYTES_MAX
        });
        if small { form.capacity() as usize } else { 1 }
    }
}

/// A part whose operands are in the store.
struct Ready {
    a: Arc<Manifest>,
    b: Arc<Manifest>,
    runs: Vec<Run>,
    stack: u32,
}

/// Checks `request`, makes its parts durable and hands them to the engine.
///
/// # Errors
/// What is wrong with the request, why it can not be taken, or that none of its products can be
/// computed.
pub(crate) async fn submit(app: &App, request: BatchRequest) -> Result<Submitted, ApiError> {
    let mut failed = Vec::new();
    let (total, kinds) = match request.products {
        Products::List(list) => {
            let total = list.len();
            check_count(total as u64)?;
            (
                total as u32,
                sort(app, list, request.dtype, &mut failed).await,
            )
        }
        Products::Stacks { a, b, products } => {
            check_count(u64::from(products))?;
            let whole = stacks(app, [a, b], products, request.dtype).await?;
            (products, whole)
        }
    };
    let mut ready = Vec::new();
    let parts: usize = kinds
        .iter()
        .map(|(kind, products)| products.len().div_ceil(kind.capacity()))
        .sum();
    if parts > PARTS_MAX as usize {
        return Err(ApiError::new(
            413,
            "too_many_parts",
            format!(
                "the batch needs {parts} parts, for each shape one and for each large product one; \
                 {PARTS_MAX} is the most"
            ),
            "submit it as several batches",
        ));
    }
    for (kind, products) in kinds {
        for chunk in products.chunks(kind.capacity()) {
            match assemble(app, &kind, chunk, &mut failed).await {
                Ok(part) => ready.extend(part),
                // A disk that is full is no product's fault, but the others may fit.
                Err(error) => failed.extend(chunk.iter().map(|one| failure(one.index, &error))),
            }
        }
    }
    failed.sort_by_key(|failed: &FailedProduct| failed.index);
    if ready.is_empty() || failed.len() > FAILED_MAX {
        let first = failed.first();
        let first = first.map_or_else(String::new, |first| {
            format!("; the first, product {}: {}", first.index, first.error)
        });
        return Err(ApiError::new(
            422,
            "batch_failed",
            format!(
                "{} of {total} products can not be computed{first}",
                failed.len()
            ),
            format!("mend them; a batch is taken with at most {FAILED_MAX} such products"),
        ));
    }
    let batch = JobId(os::random());
    let token: String = submit::token();
    let shared = Shared {
        app,
        batch,
        total,
        parts: ready.len() as u32,
        name: &request.name,
        token: BlockId::of(token.as_bytes()),
        reproducible: request.reproducible,
        slots: submit::slots(app),
        others: needs::room_of_all(&app.devices()),
    };
    let mut jobs = Vec::with_capacity(ready.len());
    for (number, part) in (0..).zip(ready) {
        let of_first = if number == 0 {
            failed.clone()
        } else {
            Vec::new()
        };
        jobs.push(shared.taken(number, part, of_first)?);
    }
    let first = Epoch {
        counter: 1,
        device: app.device(),
    };
    let stored = app.store().insert_jobs(jobs.clone(), first).await;
    stored.map_err(submit::not_stored)?;
    for taken in jobs {
        let (reply, is_taken) = oneshot::channel();
        let taken = Box::new(taken);
        if !app.tell(Event::Submit { taken, reply }).await || is_taken.await.is_err() {
            return Err(submit::stopping(batch));
        }
    }
    let job = batch;
    Ok(Submitted { job, token })
}

/// What the parts of a batch have in common.
struct Shared<'n> {
    app: &'n App,
    batch: JobId,
    total: u32,
    parts: u32,
    name: &'n str,
    token: BlockId,
    reproducible: bool,
    slots: u32,
    /// The largest tile that others have room for.
    others: u64,
}

impl Shared<'_> {
    fn taken(
        &self,
        number: u32,
        part: Ready,
        failed: Vec<FailedProduct>,
    ) -> Result<Taken, ApiError> {
        let (a, b) = (part.a, part.b);
        let dtype = a.element.dtype;
        let element = submit::element_of_product(&a, &b, dtype)?;
        let tiling = match part.stack {
            1 => plan::tiling(&a, &b, element, self.slots),
            stack => form(&a, &b, element, stack).tiling(stack, self.slots),
        };
        let mut header = JobHeader {
            job: part_id(self.batch, number),
            name: self.name.to_owned(),
            class: submit::class(dtype, self.reproducible),
            a: Manifest::clone(&a),
            b: Manifest::clone(&b),
            element,
            tiling,
            stack: part.stack,
            batch: Some(Box::new(BatchPart {
                batch: self.batch,
                part: number,
                parts: self.parts,
                products: self.total,
                runs: part.runs,
                failed,
            })),
            guard: None,
            share: None,
        };
        if part.stack == 1 {
            let (threads, shares) = (self.app.config().threads, self.app.shares());
            needs::cut(&mut header, self.slots, threads, shares, self.others)?;
        }
        submit::check(&header)?;
        Ok(Taken {
            header,
            submitted: os::wall(),
            token: self.token,
        })
    }
}

fn check_count(products: u64) -> Result<(), ApiError> {
    if products == 0 {
        return Err(ApiError::new(
            422,
            "empty_batch",
            "the batch has no products",
            "give at least one: {\"batch\": [{\"a\": ID, \"b\": ID}]}",
        ));
    }
    if products > u64::from(PRODUCTS_MAX) {
        return Err(ApiError::new(
            413,
            "too_many_products",
            format!("the batch has {products} products, {PRODUCTS_MAX} is the most"),
            "submit it as several batches",
        ));
    }
    Ok(())
}

/// Brings each product to one element type and puts it with those of its kind, first come first.
async fn sort(
    app: &App,
    list: Vec<Result<[Operand; 2], ApiError>>,
    dtype: Option<Dtype>,
    failed: &mut Vec<FailedProduct>,
) -> Vec<(Kind, Vec<Product>)> {
    let mut kinds: Vec<(Kind, Vec<Product>)> = Vec::new();
    let mut places: HashMap<Kind, usize> = HashMap::new();
    for (index, operands) in (0..).zip(list) {
        let product = match operands {
            Ok(operands) => product(app, index, operands, dtype).await,
            Err(error) => Err(error),
        };
        let sorted = product.and_then(|product| Ok((Kind::of(&product)?, product)));
        match sorted {
            Ok((kind, product)) => {
                let place = *places.entry(kind).or_insert(kinds.len());
                if place == kinds.len() {
                    kinds.push((kind, Vec::new()));
                }
                kinds[place].1.push(product);
            }
            Err(error) => failed.push(failure(index, &error)),
        }
    }
    kinds
}

async fn product(
    app: &App,
    index: u32,
    [a, b]: [Operand; 2],
    dtype: Option<Dtype>,
) -> Result<Product, ApiError> {
    submit::check_factors((a.rows(), a.manifest().cols), (b.rows(), b.manifest().cols))?;
    let (of_a, of_b) = (a.manifest().element.dtype, b.manifest().element.dtype);
    let dtype = dtype.unwrap_or_else(|| submit::common(of_a, of_b));
    Ok(Product {
        index,
        a: a.converted(app, dtype).await?,
        b: b.converted(app, dtype).await?,
    })
}

/// The products of two stacks.
async fn stacks(
    app: &App,
    [a, b]: [MatrixId; 2],
    products: u32,
    dtype: Option<Dtype>,
) -> Result<Vec<(Kind, Vec<Product>)>, ApiError> {
    let a = submit::operand(app, "a", a).await?;
    let b = submit::operand(app, "b", b).await?;
    for (name, stack) in [("a", &a), ("b", &b)] {
        if !stack.rows.is_multiple_of(u64::from(products)) {
            return Err(ApiError::new(
                422,
                "dimension_mismatch",
                format!(
                    "{name} has {} rows, which is no stack of {products} matrices",
                    stack.rows
                ),
                "give as products the `stack` that PUT /api/matrices answered for both",
            ));
        }
    }
    let each = |stack: &Manifest| stack.rows / u64::from(products);
    submit::check_factors((each(&a), a.cols), (each(&b), b.cols))?;
    let dtype = dtype.unwrap_or_else(|| submit::common(a.element.dtype, b.element.dtype));
    let a = Operand::stored(a).converted(app, dtype).await?;
    let b = Operand::stored(b).converted(app, dtype).await?;
    let slice = |operand: &Operand, index: u32| match operand {
        Operand::Stored(id, manifest, _) => {
            let (each, index) = (each(manifest), u64::from(index));
            Operand::Stored(*id, manifest.clone(), index * each..(index + 1) * each)
        }
        values => values.clone(),
    };
    let list: Vec<Product> = (0..products)
        .map(|index| Product {
            index,
            a: slice(&a, index),
            b: slice(&b, index),
        })
        .collect();
    let kind = Kind::of(&list[0])?;
    Ok(vec![(kind, list)])
}

/// Makes the operands of a part; `None` when none of its products is left.
async fn assemble(
    app: &App,
    kind: &Kind,
    products: &[Product],
    failed: &mut Vec<FailedProduct>,
) -> Result<Option<Ready>, ApiError> {
    let runs = runs(products);
    if runs.len() > RUNS_MAX {
        return Err(ApiError::new(
            413,
            "too_many_parts",
            format!(
                "products of one shape are in {} places of the list",
                runs.len()
            ),
            "sort the list by shape, or submit several batches",
        ));
    }
    let form = kind.form();
    let mut bad: Vec<(usize, ApiError)> = Vec::new();
    let a = of_stack(
        app,
        products,
        |product| &product.a,
        (kind.rows, kind.inner),
        form.a,
        &mut bad,
    )
    .await?;
    let b = of_stack(
        app,
        products,
        |product| &product.b,
        (kind.inner, kind.cols),
        form.b,
        &mut bad,
    )
    .await?;
    bad.sort_by_key(|(at, _)| *at);
    bad.dedup_by_key(|(at, _)| *at);
    for (at, error) in &bad {
        failed.push(failure(products[*at].index, error));
    }
    Ok((bad.len() < products.len()).then_some(Ready {
        a,
        b,
        runs,
        stack: products.len() as u32,
    }))
}

/// One operand of a part: the matrix that is there, or a new one of all pieces.
async fn of_stack(
    app: &App,
    products: &[Product],
    of: fn(&Product) -> &Operand,
    shape: (u64, u64),
    element: ElementType,
    bad: &mut Vec<(usize, ApiError)>,
) -> Result<Arc<Manifest>, ApiError> {
    // A stack that was sent as one, or a single matrix.
    if let Operand::Stored(id, manifest, _) = of(&products[0])
        && manifest.rows == shape.0 * products.len() as u64
        && consecutive(products, of)
    {
        return submit::operand(app, "the operand", *id).await;
    }
    if let [product] = products
        && let Some(id) = of(product).whole()
    {
        return submit::operand(app, "the operand", id).await;
    }
    let pieces = products.iter().map(|product| of(product).piece()).collect();
    let stacked = app.store().stack(pieces, shape, element).await?;
    bad.extend(
        stacked
            .failed
            .into_iter()
            .map(|(at, error)| (at, error.into())),
    );
    Ok(Arc::new(stacked.manifest))
}

/// Whether the pieces are all of one stored matrix, from its first row to its last.
fn consecutive(products: &[Product], of: fn(&Product) -> &Operand) -> bool {
    let mut next = 0;
    let mut first = None;
    products.iter().all(|product| match of(product) {
        Operand::Stored(id, _, rows) => {
            let follows = rows.start == next && *first.get_or_insert(*id) == *id;
            next = rows.end;
            follows
        }
        Operand::Values(..) => false,
    })
}

fn runs(products: &[Product]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for product in products {
        match runs.last_mut() {
            Some(run) if run.first + run.count == product.index => run.count += 1,
            _ => runs.push(Run {
                first: product.index,
                count: 1,
            }),
        }
    }
    runs
}

fn failure(index: u32, error: &ApiError) -> FailedProduct {
    let mut text = error.message.clone();
    let mut end = text.len().min(ERROR_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    FailedProduct { index, error: text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_in_the_list_are_one_run() {
        let element = ElementType {
            dtype: Dtype::F64,
            limbs: 1,
        };
        let values = || {
            let memory = Arc::new(Memory::of(1, 1, element, vec![0; 8]));
            Operand::Values(memory, Arc::new(serde_json::Value::Null))
        };
        let products: Vec<Product> = [0, 1, 2, 5, 7, 8]
            .into_iter()
            .map(|index| Product {
                index,
                a: values(),
                b: values(),
            })
            .collect();
        let runs: Vec<(u32, u32)> = runs(&products)
            .iter()
            .map(|run| (run.first, run.count))
            .collect();
        assert_eq!(runs, [(0, 3), (5, 1), (7, 2)]);
    }

    #[test]
    fn reasons_stay_within_their_bound() {
        let error = ApiError::new(422, "x", "ä".repeat(ERROR_BYTES_MAX), "");
        let failed = failure(3, &error);
        assert_eq!(failed.index, 3);
        assert!(failed.error.len() <= ERROR_BYTES_MAX && failed.error.starts_with("ää"));
    }
}
