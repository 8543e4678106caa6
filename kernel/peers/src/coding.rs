//! What sharing a product costs the one who shares it, next to the plain product and next to memory.

use std::hint::black_box;
use std::time::Duration;

use gemmesh_kernel::coding::residues::{Crt, from_integers, primes};
use gemmesh_kernel::coding::share::{Check, Scratch, multiply};
use gemmesh_kernel::coding::uniform::Entropy;
use gemmesh_kernel::coding::{Code, Parameters, Scheme, Side};
use gemmesh_kernel::exact::{output_bits, output_limbs};
use gemmesh_kernel::{Class, Element, KernelError, Placement, TileProduct, TileSpec};

use crate::clock::{Here, race};
use crate::exact::integer_bytes;
use crate::memory::filled;
use crate::table::Table;

/// Bits of the numbers.
const BITS: u32 = 31;

pub fn costs(budget: Duration) {
    let mut table = Table::new(
        "shares of n × n numbers of 31 bits for T = 1, one thread: encoding A and B, decoding C, against copying\nas many bytes as are read and written; checking all answers; all against the plain exact product;\nwhat one device does for its share, and what all do together over the plain product",
        &[
            "scheme, n",
            "primes",
            "residues ms",
            "encode ms",
            "copy ms",
            "decode ms",
            "copy ms",
            "back ms",
            "checks ms",
            "product ms",
            "coding",
            "share ms",
            "work",
        ],
    );
    for (n, prime_bits) in [(1024, 12), (1024, 15), (2048, 12)] {
        for (name, scheme) in [
            ("5 dev., p = 3", Scheme::InnerProduct { parts: 3 }),
            (
                "8 dev., 2 x 2",
                Scheme::Gasp {
                    rows: 2,
                    cols: 2,
                    chain: 1,
                },
            ),
        ] {
            one(name, scheme, (n, prime_bits), budget, &mut table);
        }
    }
}

/// Bytes that are different enough for timing.
struct Counter(u64);

impl Entropy for Counter {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), KernelError> {
        for bytes in bytes.chunks_mut(8) {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            bytes.copy_from_slice(&(self.0 >> 7).to_le_bytes()[..bytes.len()]);
        }
        Ok(())
    }
}

fn one(
    name: &str,
    scheme: Scheme,
    (n, prime_bits): (usize, u32),
    budget: Duration,
    table: &mut Table,
) {
    let fields = primes(output_bits(BITS, BITS, n) - 1, prime_bits).unwrap();
    let parameters = Parameters {
        scheme,
        colluders: 1,
        spares: 0,
    };
    let code = Code::new(parameters, fields[0]).unwrap();
    let bytes = integer_bytes(n * n, BITS);
    let words = filled(n * n, |i| {
        u64::from_le_bytes(bytes[8 * i..][..8].try_into().unwrap())
    });
    let (count, blocks) = (code.shares(), code.blocks(Side::Left));
    let part = (n * n).div_ceil(blocks);
    let data = filled(part * blocks, |i| (i * 7919 % 2_003) as i16 - 1001);
    let mask = filled(part, |i| (i * 7907 % 2_003) as i16 - 1001);
    let mut shares = filled(part * count, |_| 0);
    let inputs: Vec<&[i16]> = data.chunks_exact(part).collect();
    // A and B are alike here: twice one of them, and each for every prime.
    let both = 2.0 * fields.len() as f64;
    let mut all = filled(n * n * fields.len(), |_| 0);
    let mut to: Vec<&mut [i16]> = all.chunks_exact_mut(n * n).collect();
    let mut residues = Here(|| from_integers(&fields, &words, 1, &mut to).unwrap());
    let mut outputs: Vec<&mut [i16]> = shares.chunks_exact_mut(part).collect();
    let mut encode = Here(|| {
        code.encode(Side::Left, &inputs, &[&mask], &mut outputs)
            .unwrap();
    });
    let copied = |len: usize| {
        let from = filled(len, |i| i as i16);
        let mut to = filled(len, |_| 0);
        Here(move || black_box(&mut to).copy_from_slice(black_box(&from)))
    };
    let mut copy_shares = copied(part * (blocks + 1 + count) / 2);
    let set: Vec<usize> = (0..code.answers()).collect();
    let decoder = code.decoder(&set).unwrap();
    let (of_c, len) = (decoder.blocks(), n * n / decoder.blocks());
    let answers = filled(len * set.len(), |i| (i * 7919 % 2_003) as i16 - 1001);
    let answers: Vec<&[i16]> = answers.chunks_exact(len).collect();
    let mut c = filled(len * of_c, |_| 0);
    let mut blocks_of_c: Vec<&mut [i16]> = c.chunks_exact_mut(len).collect();
    let mut decode = Here(|| decoder.decode(&answers, &mut blocks_of_c).unwrap());
    let mut copy_answers = copied(len * (set.len() + of_c) / 2);
    let planes: Vec<Vec<i16>> = fields.iter().map(|_| data[..n * n].to_vec()).collect();
    let planes: Vec<&[i16]> = planes.iter().map(Vec::as_slice).collect();
    let limbs = output_limbs(BITS, BITS, n);
    let mut integers = filled(limbs * n * n, |_| 0u64);
    let mut crt = Crt::new(&fields).unwrap();
    let mut back = Here(|| crt.integers(&planes, limbs, &mut integers).unwrap());
    let [rows, inner, cols] = [0, 1, 2].map(|i| n.div_ceil(parameters.cut()[i]));
    let (a, b) = (filled(rows * inner, |_| 3), filled(inner * cols, |_| 5));
    let right = (15 * inner as i64 % i64::from(code.field().prime())) as u32;
    let half = code.field().prime() / 2;
    let right = if right > half {
        right as i32 - code.field().prime() as i32
    } else {
        right as i32
    };
    let answer = filled(rows * cols, |_| right as i16);
    let mut checks = Here(|| {
        let check = Check::new(*code.field(), &b, [inner, cols], &mut Counter(1)).unwrap();
        assert!(check.accepts(&a, &answer, rows));
    });
    let mut scratch = Scratch::new();
    let mut of_share = filled(rows * cols, |_| 0);
    let mut share = Here(|| {
        let shape = [rows, inner, cols];
        multiply(code.field(), &a, &b, shape, &mut of_share, &mut scratch).unwrap();
    });
    let spec = TileSpec {
        element: Element::Int {
            a_limbs: 1,
            b_limbs: 1,
            c_limbs: limbs as u16,
            a_bits: BITS,
            b_bits: BITS,
        },
        class: Class::Any,
        rows: n,
        cols: n,
        inner: n,
    };
    let mut tile = TileProduct::new(spec).unwrap();
    let mut product = Here(|| {
        tile.reset(spec).unwrap();
        tile.begin_slab(n).unwrap();
        tile.put_a(&bytes, Placement::whole(n, n, 0, 0)).unwrap();
        tile.put_b(&bytes, Placement::whole(n, n, 0, 0)).unwrap();
        tile.accumulate().unwrap();
        black_box(tile.finish().unwrap());
    });
    let seconds = race(
        &mut [
            &mut residues,
            &mut encode,
            &mut copy_shares,
            &mut decode,
            &mut copy_answers,
            &mut back,
            &mut checks,
            &mut product,
            &mut share,
        ],
        budget,
    );
    let each = fields.len() as f64;
    let whole = [
        2.0 * seconds[0],
        both * seconds[1],
        both * seconds[2],
        each * seconds[3],
        each * seconds[4],
        seconds[5],
        each * set.len() as f64 * seconds[6],
    ];
    let coding = whole[0] + whole[1] + whole[3] + whole[5];
    let mut cells = vec![format!("{name}, {n}"), fields.len().to_string()];
    cells.extend(whole.iter().map(|seconds| format!("{:.2}", 1e3 * seconds)));
    cells.push(format!("{:.1}", 1e3 * seconds[7]));
    cells.push(format!("{:.2}", coding / seconds[7]));
    cells.push(format!("{:.2}", 1e3 * each * seconds[8]));
    let work = each * count as f64 * seconds[8] / seconds[7];
    cells.push(format!("{work:.2}"));
    table.row(cells);
}
