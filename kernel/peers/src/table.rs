//! What is printed.

/// Rows under headings, each as soon as it is known.
pub struct Table {
    widths: Vec<usize>,
}

impl Table {
    pub fn new(title: &str, headings: &[&str]) -> Self {
        println!("\n{title}");
        let widths = headings
            .iter()
            .map(|heading| heading.chars().count().max(9))
            .collect();
        let mut table = Self { widths };
        table.widths[0] = 18;
        table.row(headings.iter().map(|&heading| heading.into()).collect());
        table
    }

    pub fn row(&mut self, cells: Vec<String>) {
        for (cell, width) in cells.iter().zip(&self.widths) {
            print!(
                "{}{cell}  ",
                " ".repeat(width.saturating_sub(cell.chars().count()))
            );
        }
        println!();
    }
}

/// Peers that were slower than they are known to be: then the machine was busy, and so were we.
#[derive(Default)]
pub struct Voids(Vec<String>);

impl Voids {
    /// A peer's best speed of this run, next to the one that it is known to reach on the machine that
    /// the targets are stated for.
    pub fn peer(&mut self, name: &str, stated: f64, found: f64) {
        if found < 0.9 * stated {
            let percent = 100.0 * (1.0 - found / stated);
            self.0.push(format!(
                "{name}: {found:.2}, {percent:.0} % below its {stated:.2}"
            ));
        }
    }

    /// Threads that other processes did not leave a core to.
    pub fn busy(&mut self, what: &str) {
        self.0.push(what.to_owned());
    }

    pub fn print(&self) {
        if self.0.is_empty() {
            println!("\nEvery peer is within 10 % of its stated figure: the run counts.");
        } else {
            println!(
                "\nVOID where these count: a peer is more than 10 % below its stated figure, or a thread had no"
            );
            println!(
                "core to itself: the machine was busy (or is another one than the figures are of). Run again."
            );
            self.0.iter().for_each(|line| println!("  {line}"));
        }
    }
}
