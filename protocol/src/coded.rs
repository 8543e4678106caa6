//! How a product is shared with devices that must not learn it: which scheme, on whom, and how long it takes.
//!
//! Each scheme cuts the product into K × p × L parts and needs R answers, each from a device of its own
//! (the arithmetic is `kernel::coding`, which says why any T devices learn nothing):
//!
//! | scheme | R | with S spares |
//! |---|---|---|
//! | [`Scheme::InnerProduct`] | p + 2T | only without: another device computes a missing share again |
//! | [`Scheme::InnerProductAny`] | 2p + 2T - 1 | S more shares, any R decode |
//! | [`Scheme::Gasp`] | size of the degree table | S more shares, any R decode |
//!
//! With one of m × k by k × n of Q primes, words of b bytes, and shares of s = m·k/(K·p) + k·n/(p·L) words,
//! a device takes
//!
//! ```text
//! link    = Q·b·(s + m·n/(K·L)) / its bytes a second
//! kernel  = Q·2·m·k·n/(K·p·L) / its operations a second
//! seconds = start + max(link, kernel) + min(link, kernel)/Q
//! ```
//!
//! because primes follow each other: one is computed while the next travels. All shares and R answers
//! pass the coordinator's own link. The coordinator encodes and decodes meanwhile, but for the first prime and
//! the last.
//!
//! Inner products need the least work and the least to be sent, and return whole matrices; GASP codes return
//! R/(K·L) of one. So which is faster depends on the links, and is computed.

use std::collections::BTreeSet;
use std::fmt;

use crate::id::DeviceId;

/// From an announcement to the first byte of a share, beyond what the bytes take.
const START_SECONDS: f64 = 0.002;
/// From the last answer to a job that is done.
const SETTLING_SECONDS: f64 = 0.004;
/// Sharing that spares less than this part of the time is not worth it.
const GAIN_MIN: f64 = 0.03;
/// Devices that a plan looks at, the fastest ones.
const HELPERS_MAX: usize = 64;
/// A's rows and B's columns are not cut into parts of fewer than a block has.
const PART_MIN: u32 = 256;
/// The most devices that may put together what they see.
pub const COLLUDERS_MAX: u32 = 32;
/// The most shares of one product.
const SHARES_MAX: u32 = 256;
/// The most sets of T devices whose independence is proved one by one; chains of full length need no proof.
const COLLUSIONS_MAX: u64 = 100_000;

/// How a product is cut and shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// The inner dimension in parts; all answers are needed.
    InnerProduct {
        /// p.
        parts: u32,
    },
    /// The inner dimension in parts; any R answers are enough.
    InnerProductAny {
        /// p.
        parts: u32,
    },
    /// A's rows and B's columns in parts; any R answers are enough.
    Gasp {
        /// K.
        rows: u32,
        /// L.
        cols: u32,
        /// Length of the chains of consecutive degrees.
        chain: u32,
    },
    /// Two shares with opposite masks; the third is the product of the masks, which stays at home.
    Masked,
}

impl Scheme {
    /// Parts of A's rows, of the inner dimension, and of B's columns.
    pub fn cut(self) -> [u32; 3] {
        match self {
            Self::InnerProduct { parts } | Self::InnerProductAny { parts } => [1, parts, 1],
            Self::Gasp { rows, cols, .. } => [rows, 1, cols],
            Self::Masked => [1; 3],
        }
    }

    /// R, for T colluders.
    pub fn answers(self, colluders: u32) -> u32 {
        match self {
            Self::InnerProduct { parts } => parts + 2 * colluders,
            Self::InnerProductAny { parts } => 2 * parts + 2 * colluders - 1,
            Self::Gasp { rows, cols, chain } => degrees(rows, cols, colluders, chain),
            Self::Masked => 3,
        }
    }

    /// N: answers and spares; without spares where another device computes a share again.
    pub fn shares(self, wish: Wish) -> u32 {
        let answers = self.answers(wish.colluders);
        match self {
            Self::InnerProduct { .. } | Self::Masked => answers,
            Self::InnerProductAny { .. } | Self::Gasp { .. } => answers.saturating_add(wish.spares),
        }
    }

    /// The GASP code of these parts that needs the fewest answers; of equals the one with the longest chains.
    fn gasp(rows: u32, cols: u32, wish: Wish) -> Self {
        let Wish { colluders, spares } = wish;
        let longest = rows.max(cols).min(colluders).max(1);
        let codes = (1..=longest).map(|chain| Self::Gasp { rows, cols, chain });
        let proved = |code: &Self| {
            let Self::Gasp { chain, .. } = *code else {
                return true;
            };
            let shares = code.answers(colluders).saturating_add(spares);
            chain == longest || subsets(shares, colluders) <= COLLUSIONS_MAX
        };
        codes
            .filter(proved)
            .rev()
            .min_by_key(|code| code.answers(colluders))
            .expect("chains are from 1 on")
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InnerProduct { parts } => write!(f, "inner product of {parts}"),
            Self::InnerProductAny { parts } => write!(f, "inner product of {parts}, any answers"),
            Self::Gasp { rows, cols, .. } => write!(f, "GASP code of {rows} × {cols}"),
            Self::Masked => write!(f, "two masked shares"),
        }
    }
}

/// The different sums of a degree of A and one of B: D'Oliveira et al., arXiv 2106.09816, for chains of
/// length r.
fn degrees(rows: u32, cols: u32, t: u32, chain: u32) -> u32 {
    let (k, l) = (rows.max(cols), rows.min(cols));
    let alpha = || (0..k).chain((0..t).map(|n| k * l + k * (n / chain) + n % chain));
    let beta = || (0..l).map(|n| k * n).chain(k * l..k * l + t);
    let sums: BTreeSet<u32> = alpha().flat_map(|a| beta().map(move |b| a + b)).collect();
    sums.len() as u32
}

/// The number of sets of `choose` out of `of`; saturating.
fn subsets(of: u32, choose: u32) -> u64 {
    let choose = choose.min(of.saturating_sub(choose));
    (0..u64::from(choose)).fold(1u64, |count, i| {
        let all = count.checked_mul(u64::from(of) - i);
        all.map_or(u64::MAX, |all| all / (i + 1))
    })
}

/// The product.
#[derive(Debug, Clone, Copy)]
pub struct Product {
    /// m, k, n: rows of C, inner dimension, columns of C.
    pub shape: [u64; 3],
    /// Q: primes modulo which it is taken; at least 1.
    pub primes: u32,
    /// Bytes of a residue on the wire.
    pub word_bytes: f64,
}

/// What the user asks for.
#[derive(Debug, Clone, Copy)]
pub struct Wish {
    /// T: how many devices may put together what they see; at least 1.
    pub colluders: u32,
    /// S: how many devices may fail or lie.
    pub spares: u32,
}

/// The coordinator.
#[derive(Debug, Clone, Copy)]
pub struct Home {
    /// Operations of the plain product a second (2·m·k·n); 0 if it computes nothing.
    pub rate: f64,
    /// Multiply-adds of coding a second, all slots together; positive.
    pub coding: f64,
}

/// Another device.
#[derive(Debug, Clone, Copy)]
pub struct Helper {
    /// The device.
    pub device: DeviceId,
    /// Operations a second of products modulo one prime; positive.
    pub rate: f64,
    /// Bytes a second between it and the coordinator; positive.
    pub link: f64,
}

/// A product that is shared.
#[derive(Debug, Clone, PartialEq)]
pub struct Sharing {
    /// The scheme.
    pub scheme: Scheme,
    /// R.
    pub answers: u32,
    /// How many shares there are.
    pub shares: u32,
    /// One device for each share, the fastest first. None is there twice.
    pub devices: Vec<DeviceId>,
    /// Until C is there.
    pub seconds: f64,
    /// Operations of all devices over those of the plain product modulo as many primes: N/(K·p·L).
    pub compute: f64,
    /// Bytes to all devices, and of R answers.
    pub bytes: [f64; 2],
    /// What the coordinator spends on encoding and decoding.
    pub coding_seconds: f64,
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// How it is shared; `None` if the coordinator computes it alone, because that is as fast. That is
    /// private, too.
    pub sharing: Option<Sharing>,
    /// The fastest way to share it by a scheme of the other kind (inner product, GASP), or, if the
    /// coordinator works alone, the fastest of all.
    pub instead: Option<Sharing>,
    /// How long the coordinator alone takes; infinite if it computes nothing.
    pub alone: f64,
}

impl fmt::Display for Choice {
    /// What was chosen and why, for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(sharing) = &self.sharing else {
            write!(f, "computed here alone in {:.1} s", self.alone)?;
            let Some(instead) = &self.instead else {
                return Ok(());
            };
            let (seconds, devices) = (instead.seconds, instead.shares);
            return write!(f, "; shared with {devices} devices it takes {seconds:.1} s");
        };
        write!(
            f,
            "{} on {} devices: {:.2} times the work, {:.1} s",
            sharing.scheme,
            sharing.devices.len(),
            sharing.compute,
            sharing.seconds
        )?;
        if let Some(instead) = &self.instead {
            let (seconds, devices) = (instead.seconds, instead.devices.len());
            write!(f, "; {} on {devices} takes {seconds:.1} s", instead.scheme)?;
        }
        if self.alone.is_finite() {
            write!(f, "; this node alone takes {:.1} s", self.alone)?;
        }
        Ok(())
    }
}

/// Why a product can not be shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Every scheme needs more devices.
    #[error(
        "a private product needs {needed} devices besides this node when up to {colluders} may put together what they see \
         and {spares} may fail; {found} are there"
    )]
    TooFew {
        /// 2T + 1 + S.
        needed: u32,
        /// Devices that are there.
        found: u32,
        /// T.
        colluders: u32,
        /// S.
        spares: u32,
    },
    /// Two devices are needed.
    #[error(
        "a masked product needs 2 devices besides this node, one for each share; {found} {are} there",
        are = if *found == 1 { "is" } else { "are" }
    )]
    NoPair {
        /// Devices that are there.
        found: u32,
    },
    /// No number of colluders.
    #[error(
        "the number of devices that may put together what they see is from 1 to {COLLUDERS_MAX}"
    )]
    Colluders,
}

/// Devices that a private product needs at least besides the coordinator: 2T + 1 + S.
pub fn needed(wish: Wish) -> u32 {
    (2 * wish.colluders + 1).saturating_add(wish.spares)
}

/// The way to share a product that is predicted to take the least time, or none if the coordinator alone takes
/// no longer. `helpers` are different devices; what each sees must be all that it sees of the product.
/// Cost: O(devices³·T²) for the [`HELPERS_MAX`] fastest devices.
///
/// # Errors
/// [`Refusal`], whose text says how many devices are needed.
pub fn choose(
    product: &Product,
    wish: Wish,
    home: Home,
    helpers: &[Helper],
) -> Result<Choice, Refusal> {
    let Wish { colluders, spares } = wish;
    if !(1..=COLLUDERS_MAX).contains(&colluders) {
        return Err(Refusal::Colluders);
    }
    let found = u32::try_from(helpers.len()).unwrap_or(u32::MAX);
    if found < needed(wish) {
        return Err(Refusal::TooFew {
            needed: needed(wish),
            found,
            colluders,
            spares,
        });
    }
    let operations = product
        .shape
        .iter()
        .fold(2.0, |all, &size| all * size as f64);
    let alone = if home.rate > 0.0 {
        operations / home.rate + SETTLING_SECONDS
    } else {
        f64::INFINITY
    };
    let most = helpers.len().min(HELPERS_MAX.max(needed(wish) as usize)) as u32;
    let mut best: [Option<Sharing>; 2] = [None, None];
    for scheme in schemes(product, wish, most) {
        let sharing = predict(product, wish, scheme, home, helpers);
        let kind = usize::from(matches!(scheme, Scheme::Gasp { .. }));
        let slot = &mut best[kind];
        if slot
            .as_ref()
            .is_none_or(|best| sharing.seconds < best.seconds)
        {
            *slot = Some(sharing);
        }
    }
    let [inner, outer] = best;
    let seconds = |sharing: &Option<Sharing>| sharing.as_ref().map_or(f64::INFINITY, |s| s.seconds);
    let (first, second) = if seconds(&outer) < seconds(&inner) {
        (outer, inner)
    } else {
        (inner, outer)
    };
    Ok(if alone * (1.0 - GAIN_MIN) <= seconds(&first) {
        Choice {
            sharing: None,
            instead: first,
            alone,
        }
    } else {
        Choice {
            sharing: first,
            instead: second,
            alone,
        }
    })
}

/// How a product is shared by two masked shares, on the two devices that are fastest with it. `home` computes the
/// product of the masks.
///
/// # Errors
/// [`Refusal::NoPair`].
pub fn masked(
    product: &Product,
    home: (DeviceId, Home),
    helpers: &[Helper],
) -> Result<Sharing, Refusal> {
    let found = helpers.len() as u32;
    let wish = Wish {
        colluders: 1,
        spares: 0,
    };
    if found < 2 {
        return Err(Refusal::NoPair { found });
    }
    let [m, k, n] = product.shape.map(|size| size as f64);
    let primes = f64::from(product.primes.max(1));
    let bytes = |words: f64| primes * product.word_bytes * words;
    let (up, down) = (bytes(m * k + k * n), bytes(m * n));
    let operations = primes * 2.0 * m * k * n;
    let ranked = ranked(helpers, up + down, operations, primes);
    let (me, home) = home;
    let own = if home.rate > 0.0 {
        2.0 * m * k * n / home.rate
    } else {
        f64::INFINITY
    };
    let port = helpers.iter().map(|one| one.link).fold(0.0, f64::max);
    let coding = primes * coding_operations(product, wish, Scheme::Masked) / home.coding;
    let (last, _) = ranked[1];
    Ok(Sharing {
        scheme: Scheme::Masked,
        answers: 3,
        shares: 3,
        devices: vec![ranked[0].1.device, ranked[1].1.device, me],
        seconds: last.max(2.0 * (up + down) / port).max(coding + own)
            + coding / primes
            + SETTLING_SECONDS,
        compute: 3.0,
        bytes: [2.0 * up, 2.0 * down],
        coding_seconds: coding,
    })
}

/// When each helper has computed a share of so many bytes and operations, the first one first.
fn ranked(helpers: &[Helper], bytes: f64, operations: f64, primes: f64) -> Vec<(f64, &Helper)> {
    let time = |helper: &Helper| {
        let (link, kernel) = (bytes / helper.link, operations / helper.rate);
        START_SECONDS + link.max(kernel) + link.min(kernel) / primes
    };
    let mut ranked: Vec<(f64, &Helper)> = helpers.iter().map(|one| (time(one), one)).collect();
    ranked.sort_by(|(x, _), (y, _)| x.total_cmp(y));
    ranked
}

/// Multiply-adds of the coordinator for each prime.
fn coding_operations(product: &Product, wish: Wish, scheme: Scheme) -> f64 {
    let [m, k, n] = product.shape.map(|size| size as f64);
    let [rows, inner, cols] = scheme.cut().map(f64::from);
    let (primes, t) = (f64::from(product.primes.max(1)), f64::from(wish.colluders));
    let (left, right) = (m * k / (rows * inner), k * n / (inner * cols));
    let answers = scheme.answers(wish.colluders);
    let of_shares = f64::from(scheme.shares(wish));
    // Residues of A, B and C, about 4 multiply-adds each, and digits of C's integers.
    let residues = 4.0 * (m * k + k * n + m * n) + primes / 2.0 * m * n;
    let encoding = of_shares * ((rows * inner + t) * left + (inner * cols + t) * right);
    residues + encoding + f64::from(answers) * m * n
}

/// All schemes that `most` devices can hold, with parts that have elements.
fn schemes(product: &Product, wish: Wish, most: u32) -> Vec<Scheme> {
    let Wish { colluders, spares } = wish;
    let most = most - spares;
    let [m, k, n] = product
        .shape
        .map(|size| u32::try_from(size).unwrap_or(u32::MAX));
    let mut all = Vec::new();
    for parts in (1..=most).take_while(|&parts| parts <= k) {
        // Of one that needs all answers nobody may be slow.
        all.push(match spares {
            0 => Scheme::InnerProduct { parts },
            _ => Scheme::InnerProductAny { parts },
        });
    }
    // Parts of A's rows and B's columns are whole blocks.
    let parts = |parts: u32, size: u32| parts == 1 || size / parts >= PART_MIN;
    for rows in (1..=most).take_while(|&rows| rows <= m && parts(rows, m)) {
        // Blocks of C and both kinds of edges of the table are answers.
        for cols in (1..=most).take_while(|&cols| cols <= n && parts(cols, n) && rows * cols < most)
        {
            all.push(Scheme::gasp(rows, cols, wish));
        }
    }
    let fits = |scheme: &Scheme| {
        let answers = scheme.answers(colluders);
        answers <= most && scheme.shares(wish) <= SHARES_MAX
    };
    all.retain(fits);
    all
}

/// What a scheme takes on the devices that are fastest with it.
fn predict(
    product: &Product,
    wish: Wish,
    scheme: Scheme,
    home: Home,
    helpers: &[Helper],
) -> Sharing {
    let [m, k, n] = product.shape.map(|size| size as f64);
    let [rows, inner, cols] = scheme.cut().map(f64::from);
    let primes = f64::from(product.primes.max(1));
    let (left, right) = (m * k / (rows * inner), k * n / (inner * cols));
    let bytes = |words: f64| primes * product.word_bytes * words;
    let (up, down) = (bytes(left + right), bytes(m * n / (rows * cols)));
    let operations = primes * 2.0 * m * k * n / (rows * inner * cols);
    let ranked = ranked(helpers, up + down, operations, primes);
    let answers = scheme.answers(wish.colluders);
    let everybody = (answers + wish.spares) as usize;
    let shares = scheme.shares(wish);
    let (last, _) = ranked[answers as usize - 1];
    let port = helpers.iter().map(|one| one.link).fold(0.0, f64::max);
    let (of_shares, of_answers) = (f64::from(shares), f64::from(answers));
    let bytes = [of_shares * up, of_answers * down];
    let coding = primes * coding_operations(product, wish, scheme) / home.coding;
    let passing = (bytes[0] + bytes[1]) / port;
    Sharing {
        scheme,
        answers,
        shares,
        devices: ranked
            .iter()
            .take(everybody)
            .map(|(_, helper)| helper.device)
            .collect(),
        seconds: last.max(passing).max(coding) + coding / primes + SETTLING_SECONDS,
        compute: of_shares / (rows * inner * cols),
        bytes,
        coding_seconds: coding,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FAST: f64 = 1e10;
    const WIFI: f64 = 6e6;

    fn helpers(count: u8, rate: f64, link: f64) -> Vec<Helper> {
        (1..=count)
            .map(|id| Helper {
                device: DeviceId([id; 32]),
                rate,
                link,
            })
            .collect()
    }

    fn square(n: u64) -> Product {
        Product {
            shape: [n; 3],
            primes: 5,
            word_bytes: 2.0,
        }
    }

    /// A coordinator that does not compute, so that sharing is always chosen.
    const IDLE: Home = Home {
        rate: 0.0,
        coding: 5e9,
    };

    fn wish(colluders: u32, spares: u32) -> Wish {
        Wish { colluders, spares }
    }

    #[test]
    fn few_devices_get_inner_products_with_the_factors_of_theory() {
        for (count, parts, compute) in [(3, 1, 3.0), (4, 2, 2.0), (5, 3, 5.0 / 3.0), (6, 4, 1.5)] {
            let helpers = helpers(count, 1e9, FAST);
            let choice = choose(&square(4_096), wish(1, 0), IDLE, &helpers).unwrap();
            let sharing = choice.sharing.unwrap();
            assert_eq!(sharing.scheme, Scheme::InnerProduct { parts });
            assert_eq!(sharing.shares, u32::from(count));
            assert!((sharing.compute - compute).abs() < 1e-12);
        }
        let helpers = helpers(8, 1e9, FAST);
        let choice = choose(&square(4_096), wish(1, 0), IDLE, &helpers).unwrap();
        let sharing = choice.sharing.unwrap();
        assert!((sharing.compute - 8.0 / 6.0).abs() < 1e-12, "{sharing:?}");
    }

    #[test]
    fn many_devices_behind_a_slow_link_get_a_gasp_code() {
        // One port for all: what counts is words sent, 10 n² against 10.7 n² for 8 devices and 11.7 n² against
        // 17.3 n² for 15.
        for (count, rows, cols) in [(8, 2, 2), (11, 3, 2), (15, 3, 3)] {
            let helpers = helpers(count, 1e12, WIFI);
            let choice = choose(&square(2_048), wish(1, 0), IDLE, &helpers).unwrap();
            let words = |sharing: &Sharing| {
                (sharing.bytes[0] + sharing.bytes[1]) / (10.0 * 2_048f64.powi(2))
            };
            let best = choice.sharing.as_ref().unwrap();
            let same = Scheme::gasp(rows, cols, wish(1, 0));
            let gasp = predict(&square(2_048), wish(1, 0), same, IDLE, &helpers);
            assert_eq!(gasp.shares, u32::from(count));
            assert!(words(best) <= words(&gasp) + 1e-9, "{choice}");
        }
        // The same devices on a fast link: least work counts.
        let choice = choose(&square(8_192), wish(1, 0), IDLE, &helpers(15, 1e9, FAST)).unwrap();
        assert_eq!(
            choice.sharing.unwrap().scheme,
            Scheme::InnerProduct { parts: 13 }
        );
    }

    #[test]
    fn a_gasp_code_is_chosen_where_it_moves_less() {
        // 6 inner products on 8 devices would move 10.7 n², 3 on 5 move 8.3; with a long result and a short inner
        // dimension whole answers are what costs.
        let product = Product {
            shape: [8_192, 256, 8_192],
            primes: 4,
            word_bytes: 2.0,
        };
        let choice = choose(&product, wish(1, 0), IDLE, &helpers(15, 1e12, WIFI)).unwrap();
        let sharing = choice.sharing.as_ref().unwrap();
        assert!(matches!(sharing.scheme, Scheme::Gasp { .. }), "{choice}");
        let text = choice.to_string();
        assert!(
            text.starts_with("GASP code of ") && text.contains("; inner product of"),
            "{text}"
        );
    }

    #[test]
    fn too_few_devices_are_refused_with_the_number_needed() {
        for (colluders, spares, needed) in [(1, 0, 3), (1, 1, 4), (2, 0, 5), (3, 2, 9)] {
            let wish = wish(colluders, spares);
            for found in 0..needed {
                let helpers = helpers(found, 1e9, FAST);
                let refused = choose(&square(100), wish, IDLE, &helpers).unwrap_err();
                let text = refused.to_string();
                assert!(text.contains(&format!("needs {needed} devices")), "{text}");
                assert!(text.ends_with(&format!("{found} are there")), "{text}");
            }
            let helpers = helpers(needed, 1e9, FAST);
            let choice = choose(&square(100), wish, IDLE, &helpers).unwrap();
            assert_eq!(choice.sharing.unwrap().devices.len(), usize::from(needed));
        }
        for colluders in [0, COLLUDERS_MAX + 1] {
            let all = helpers(200, 1e9, FAST);
            let refused = choose(&square(100), wish(colluders, 0), IDLE, &all);
            assert_eq!(refused, Err(Refusal::Colluders));
        }
    }

    #[test]
    fn a_coordinator_that_is_as_fast_alone_shares_nothing() {
        let home = Home {
            rate: 5e10,
            coding: 5e9,
        };
        let choice = choose(&square(1_024), wish(1, 0), home, &helpers(5, 1e9, WIFI)).unwrap();
        assert_eq!(choice.sharing, None);
        assert!(
            choice
                .instead
                .is_some_and(|instead| instead.seconds > choice.alone)
        );
        // Strong helpers on a fast link are worth it.
        let home = Home {
            rate: 1e9,
            coding: 2e9,
        };
        let choice = choose(&square(4_096), wish(1, 0), home, &helpers(5, 1e11, 1e9)).unwrap();
        assert!(choice.sharing.unwrap().seconds < choice.alone);
    }

    #[test]
    fn spares_are_devices_of_their_own_and_the_slowest_device_is_not_waited_for() {
        let mut all = helpers(6, 1e9, FAST);
        all[2].rate = 1e5;
        let choice = choose(&square(2_048), wish(1, 1), IDLE, &all).unwrap();
        let sharing = choice.sharing.unwrap();
        assert!(sharing.devices.len() > sharing.answers as usize);
        let answering = &sharing.devices[..sharing.answers as usize];
        assert!(!answering.contains(&all[2].device), "{sharing:?}");
        assert!(sharing.seconds < 1_000.0);
    }

    proptest! {
        #[test]
        fn a_plan_has_a_device_for_each_share_and_none_twice(
            shape in prop::array::uniform3(1u64..5_000),
            primes in 1u32..40,
            colluders in 1u32..5,
            spares in 0u32..4,
            speeds in prop::collection::vec((6.0..12.0, 4.0..10.0), 0..30),
        ) {
            let helpers: Vec<Helper> = (1..).zip(&speeds).map(|(id, &(rate, link))| Helper {
                device: DeviceId([id; 32]),
                rate: 10f64.powf(rate),
                link: 10f64.powf(link),
            }).collect();
            let product = Product { shape, primes, word_bytes: 2.0 };
            let wish = wish(colluders, spares);
            match choose(&product, wish, IDLE, &helpers) {
                Err(Refusal::TooFew { needed, found, .. }) => {
                    prop_assert_eq!(found as usize, helpers.len());
                    prop_assert!(found < needed && needed == 2 * colluders + 1 + spares);
                }
                Err(other) => prop_assert!(false, "{}", other),
                Ok(choice) => {
                    let sharing = choice.sharing.expect("the coordinator computes nothing");
                    let different: BTreeSet<DeviceId> = sharing.devices.iter().copied().collect();
                    prop_assert_eq!(different.len(), sharing.devices.len());
                    prop_assert_eq!(sharing.devices.len() as u32, sharing.answers + spares);
                    prop_assert_eq!(sharing.answers, sharing.scheme.answers(colluders));
                    prop_assert!(sharing.shares as usize <= sharing.devices.len());
                    prop_assert!(sharing.seconds.is_finite() && sharing.seconds > 0.0);
                    for (size, parts) in shape.into_iter().zip(sharing.scheme.cut()) {
                        prop_assert!(u64::from(parts) <= size);
                    }
                    if let Some(instead) = choice.instead {
                        prop_assert!(instead.seconds >= sharing.seconds);
                    }
                }
            }
        }
    }
}
