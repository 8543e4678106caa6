//! `gemmesh bench`: the kernel's speed on this device next to the measured limit.

use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use gemmesh_kernel::tile::{Element, Placement, TileProduct, TileSpec};
use gemmesh_kernel::{Class, KernelError, peak};
use serde_json::{Value, json};

use super::args::BenchArgs;
use super::error::CliError;
use super::progress::Progress;
use super::table::{Align, Table};
use super::{config, output, text};

/// The edge of the products: large enough for full speed, small enough to finish in seconds.
const EDGE: usize = 512;
/// How long each figure is measured at least.
const SPAN: Duration = Duration::from_millis(300);
/// One round of multiply-adds takes about this long.
const ROUND: Duration = Duration::from_millis(2);
/// Bits of the integers that are multiplied.
const INT_BITS: u32 = 32;

/// A kind of product.
struct Kind {
    name: &'static str,
    what: &'static str,
    element: Element,
    class: Class,
}

/// Speed and limit with some threads, in MFLOPS.
struct Figure {
    threads: u32,
    mflops: f64,
    limit: Option<f64>,
}

/// Measures and prints.
///
/// # Errors
/// Not enough memory.
pub fn run(args: &BenchArgs) -> Result<(), CliError> {
    let threads = args.threads.unwrap_or_else(config::threads);
    let counts = if threads == 1 {
        vec![1]
    } else {
        vec![1, threads]
    };
    let progress = Progress::new();
    let mut results = Vec::new();
    for kind in kinds() {
        let mut figures = Vec::new();
        for &threads in &counts {
            progress.step(&format!(
                "{} on {}",
                kind.name,
                text::count(threads.into(), "thread")
            ));
            figures.push(Figure {
                threads,
                mflops: speed(&kind, threads)?,
                limit: limit(&kind, threads),
            });
        }
        results.push((kind, figures));
    }
    progress.clear();
    if args.json {
        output::json(&as_json(&results))
    } else {
        output::print(&as_table(&results))
    }
}

fn kinds() -> [Kind; 4] {
    let c_limbs = gemmesh_kernel::exact::output_limbs(INT_BITS, INT_BITS, EDGE);
    let int = Element::Int {
        a_limbs: 1,
        b_limbs: 1,
        c_limbs: u16::try_from(c_limbs).expect("two limbs are enough for 32-bit factors"),
        a_bits: INT_BITS,
        b_bits: INT_BITS,
    };
    [
        Kind {
            name: "f64",
            what: "the default",
            element: Element::F64,
            class: Class::Any,
        },
        Kind {
            name: "f32",
            what: "the default",
            element: Element::F32,
            class: Class::Any,
        },
        Kind {
            name: "f64 --reproducible",
            what: "two roundings",
            element: Element::F64,
            class: Class::Separate,
        },
        Kind {
            name: "int",
            what: "32-bit values, exact",
            element: int,
            class: Class::Any,
        },
    ]
}

/// MFLOPS of products of edge [`EDGE`], one in each thread at a time.
fn speed(kind: &Kind, threads: u32) -> Result<f64, CliError> {
    let spec = TileSpec {
        element: kind.element,
        class: kind.class,
        rows: EDGE,
        cols: EDGE,
        inner: EDGE,
    };
    let block = block(kind.element);
    let prepare = || {
        let mut tile = TileProduct::new(spec)?;
        let block = block.as_slice();
        Ok::<_, KernelError>(move || {
            tile.reset(spec)?;
            tile.begin_slab(EDGE)?;
            let whole = Placement::whole(EDGE, EDGE, 0, 0);
            tile.put_a(block, whole)?;
            tile.put_b(block, whole)?;
            // The clock is around the arithmetic alone, as everywhere in gemmesh.
            let start = Instant::now();
            tile.accumulate()?;
            if matches!(kind.element, Element::Int { .. }) {
                black_box(tile.finish()?);
            }
            Ok((tile.operations(), start.elapsed()))
        })
    };
    measure(threads, prepare).map_err(|error| {
        CliError::failed(
            format!("the product can not be measured: {error}"),
            "close other programs",
        )
    })
}

/// MFLOPS of multiply-adds in registers; integers have no such limit of their own.
fn limit(kind: &Kind, threads: u32) -> Option<f64> {
    let round = match kind.element {
        Element::F64 => peak::class_multiply_adds::<f64>,
        Element::F32 => peak::class_multiply_adds::<f32>,
        Element::Int { .. } | Element::Residues { .. } => return None,
    };
    let class = kind.class;
    let mut iterations = 1_000;
    loop {
        let start = Instant::now();
        black_box(round(class, iterations));
        if start.elapsed() >= ROUND || iterations > 1 << 40 {
            break;
        }
        iterations *= 2;
    }
    let measured = measure(threads, || {
        Ok::<_, std::convert::Infallible>(move || {
            let start = Instant::now();
            let operations = black_box(round(class, iterations));
            Ok((operations, start.elapsed()))
        })
    });
    match measured {
        Ok(mflops) => Some(mflops),
        Err(never) => match never {},
    }
}

/// The sum over threads of operations per second, in 10^6, while all of them work. `prepare` makes
/// the work of one thread; each call of it says how many operations it did in which time.
fn measure<E, W>(threads: u32, prepare: impl Fn() -> Result<W, E> + Sync) -> Result<f64, E>
where
    E: Send,
    W: FnMut() -> Result<(u64, Duration), E>,
{
    let barrier = Barrier::new(threads as usize);
    let one = || {
        let prepared = prepare().and_then(|mut work| work().map(|_| work));
        barrier.wait();
        let mut work = prepared?;
        let begun = Instant::now();
        let (mut operations, mut busy) = (0_u64, Duration::ZERO);
        while begun.elapsed() < SPAN {
            let (done, took) = work()?;
            operations += done;
            busy += took;
        }
        Ok(operations as f64 / busy.as_secs_f64() / 1e6)
    };
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        let speeds = running
            .into_iter()
            .map(|thread| thread.join().expect("measuring does not panic"));
        speeds.sum()
    })
}

/// One operand as bytes: small values of both signs.
fn block(element: Element) -> Vec<u8> {
    let values = (0..EDGE * EDGE).map(|index| (index * 7 % 23) as i32 - 11);
    match element {
        Element::F64 => values
            .flat_map(|value| f64::from(value).to_le_bytes())
            .collect(),
        Element::F32 => values
            .flat_map(|value| (value as f32).to_le_bytes())
            .collect(),
        Element::Residues { .. } => unreachable!("not among the kinds"),
        // Spread over all bits that the element is said to have.
        Element::Int { .. } => values
            .flat_map(|value| (i64::from(value) * 390_000_001).to_le_bytes())
            .collect(),
    }
}

fn as_json(results: &[(Kind, Vec<Figure>)]) -> Value {
    let products: Vec<Value> = results
        .iter()
        .map(|(kind, figures)| {
            let figures: Vec<Value> = figures
                .iter()
                .map(|figure| json!({"threads": figure.threads, "mflops": figure.mflops, "limit_mflops": figure.limit}))
                .collect();
            json!({"product": kind.name, "about": kind.what, "edge": EDGE, "figures": figures})
        })
        .collect();
    json!({"kernel": gemmesh_kernel::instance(), "products": products})
}

fn as_table(results: &[(Kind, Vec<Figure>)]) -> String {
    let mut table = Table::new(&[
        ("PRODUCT", Align::Left),
        ("THREADS", Align::Right),
        ("MFLOPS", Align::Right),
        ("LIMIT", Align::Right),
        ("OF LIMIT", Align::Right),
        ("", Align::Left),
    ])
    .optional(&["", "LIMIT"]);
    for (kind, figures) in results {
        for figure in figures {
            let share = figure
                .limit
                .map(|limit| format!("{:.0} %", 100.0 * figure.mflops / limit));
            table.row(vec![
                kind.name.to_owned(),
                figure.threads.to_string(),
                text::mflops(figure.mflops),
                figure.limit.map_or_else(|| "-".to_owned(), text::mflops),
                share.unwrap_or_else(|| "-".to_owned()),
                kind.what.to_owned(),
            ]);
        }
    }
    let columns = output::columns();
    let about = format!(
        "Kernel {}, products of {EDGE}×{EDGE} matrices. LIMIT: multiply-adds in registers alone, \
         measured here; no product can be faster.",
        gemmesh_kernel::instance()
    );
    format!(
        "{}\n\n{}",
        text::wrapped(&about, 0, columns.or(Some(80))),
        table.render(0, columns)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_fill_their_product_and_integers_use_the_bits_they_claim() {
        for kind in kinds() {
            assert_eq!(
                block(kind.element).len(),
                EDGE * EDGE * kind.element.bytes()[0],
                "{}",
                kind.name
            );
        }
        let largest = 11_i64 * 390_000_001;
        assert_eq!(64 - largest.leading_zeros(), INT_BITS);
    }

    #[test]
    fn speeds_of_threads_add_up() {
        let speed = measure(3, || {
            Ok::<_, ()>(|| {
                thread::sleep(Duration::from_millis(100));
                Ok((2_000_000, Duration::from_secs(1)))
            })
        });
        assert_eq!(speed.map(|mflops| mflops.round()), Ok(6.0));
        assert_eq!(
            measure(
                2,
                || Err::<fn() -> Result<(u64, Duration), &'static str>, _>("no memory")
            ),
            Err("no memory")
        );
    }

    #[test]
    fn tables_have_a_line_for_each_figure() {
        let results: Vec<_> = kinds()
            .into_iter()
            .map(|kind| {
                let limit = (kind.name != "int").then_some(2_000.0);
                (
                    kind,
                    vec![Figure {
                        threads: 1,
                        mflops: 1_500.0,
                        limit,
                    }],
                )
            })
            .collect();
        let table = as_table(&results);
        assert_eq!(table.matches("75 %").count(), 3, "{table}");
        assert_eq!(
            as_json(&results)["products"][3]["figures"][0]["limit_mflops"],
            Value::Null
        );
    }
}
