//! The dependency graph of this workspace, squared: an entry of the square counts the paths of
//! length two, which is in how many ways one crate reaches another by way of a third.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::mesh::Mesh;
use crate::{Outcome, show};

/// How many pairs are shown.
const SHOWN: usize = 5;

/// Crates by number, and for each the numbers of those it depends on.
struct Graph {
    names: Vec<String>,
    edges: Vec<BTreeSet<usize>>,
}

/// Paths of length two by (from, to).
type Paths = BTreeMap<(usize, usize), u64>;

/// Squares the graph on the mesh, checks the square and shows the pairs with the most paths.
pub fn run(mesh: &Mesh, dir: &Path) -> Outcome<()> {
    let graph = Graph::of_workspace()?;
    let edges: usize = graph.edges.iter().map(BTreeSet::len).sum();
    show::line(&format!(
        "  {} crates, {edges} direct dependencies (cargo metadata)",
        graph.names.len()
    ));
    let [file, square] = ["g.mtx", "g2.mtx"].map(|name| dir.join(name));
    fs::write(&file, graph.matrix_market())
        .map_err(|error| format!("{}: {error}", file.display()))?;

    let status = mesh.multiply(&file, &file, &square)?;
    if status["dtype"] != "int" {
        return Err(format!(
            "a file of integers was multiplied as {}",
            status["dtype"]
        ));
    }
    let text =
        fs::read_to_string(&square).map_err(|error| format!("{}: {error}", square.display()))?;
    let found =
        read_counts(&text, graph.names.len()).map_err(|error| format!("g2.mtx: {error}"))?;
    let counted = graph.paths();
    if found != counted {
        return Err(format!(
            "the square of the graph is wrong: {} pairs of crates instead of {}, or other counts",
            found.len(),
            counted.len()
        ));
    }
    show::contributions(&status);
    show::line(&format!(
        "  the {SHOWN} pairs of crates with the most paths of length two:"
    ));
    for ((from, to), count) in most(&found) {
        let example = graph
            .between(from, to)
            .map_or(String::new(), |via| format!(", one by way of {via}"));
        show::line(&format!(
            "  {count:>5}  {} → {}{example}",
            graph.names[from], graph.names[to]
        ));
    }
    show::line(&format!(
        "  checked: all {} entries equal an independent count of paths",
        counted.len()
    ));
    Ok(())
}

/// The pairs with the most paths; equal ones in the order of the crates.
fn most(paths: &Paths) -> Vec<((usize, usize), u64)> {
    let mut list: Vec<_> = paths.iter().map(|(pair, count)| (*pair, *count)).collect();
    list.sort_by_key(|(pair, count)| (std::cmp::Reverse(*count), *pair));
    list.truncate(SHOWN);
    list
}

impl Graph {
    fn of_workspace() -> Outcome<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let host = host()?;
        let fix = "the demo needs cargo (https://rustup.rs) and this workspace's sources";
        let output = Command::new("cargo")
            .args([
                "metadata",
                "--format-version",
                "1",
                "--locked",
                "--filter-platform",
                &host,
            ])
            .current_dir(&root)
            .output()
            .map_err(|error| {
                format!("cargo can not be run in {}: {error}; {fix}", root.display())
            })?;
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            return Err(format!(
                "`cargo metadata` failed; {fix}\n  {}",
                errors.trim().replace('\n', "\n  ")
            ));
        }
        let metadata = serde_json::from_slice(&output.stdout)
            .map_err(|error| format!("`cargo metadata` printed no JSON: {error}"))?;
        Self::from_metadata(&metadata)
            .ok_or_else(|| "`cargo metadata` has another form than expected".to_owned())
    }

    fn from_metadata(metadata: &Value) -> Option<Self> {
        let mut labels = BTreeMap::new();
        for package in metadata["packages"].as_array()? {
            let label = format!(
                "{} {}",
                package["name"].as_str()?,
                package["version"].as_str()?
            );
            labels.insert(package["id"].as_str()?, label);
        }
        let nodes = metadata["resolve"]["nodes"].as_array()?;
        let mut numbers = BTreeMap::new();
        let mut names = Vec::new();
        for (number, node) in nodes.iter().enumerate() {
            let id = node["id"].as_str()?;
            numbers.insert(id, number);
            names.push(labels.get(id)?.clone());
        }
        let mut edges = Vec::new();
        for node in nodes {
            let mut targets = BTreeSet::new();
            for dependency in node["dependencies"].as_array()? {
                targets.insert(*numbers.get(dependency.as_str()?)?);
            }
            edges.push(targets);
        }
        Some(Self { names, edges })
    }

    /// One line for each edge; rows and columns count from 1.
    fn matrix_market(&self) -> String {
        let (size, edges) = (
            self.names.len(),
            self.edges.iter().map(BTreeSet::len).sum::<usize>(),
        );
        let mut text =
            format!("%%MatrixMarket matrix coordinate integer general\n{size} {size} {edges}\n");
        for (from, targets) in self.edges.iter().enumerate() {
            for to in targets {
                text.push_str(&format!("{} {} 1\n", from + 1, to + 1));
            }
        }
        text
    }

    /// Counts by walking: no matrix, no product.
    fn paths(&self) -> Paths {
        let mut paths = Paths::new();
        for (from, via) in self.edges.iter().enumerate() {
            for to in via.iter().flat_map(|via| &self.edges[*via]) {
                *paths.entry((from, *to)).or_default() += 1;
            }
        }
        paths
    }

    fn between(&self, from: usize, to: usize) -> Option<&str> {
        let via = self.edges[from]
            .iter()
            .find(|via| self.edges[**via].contains(&to))?;
        Some(&self.names[*via])
    }
}

/// The system that this program was built on, as cargo calls it.
fn host() -> Outcome<String> {
    let output = Command::new("rustc").arg("-vV").output();
    let output = output.map_err(|error| {
        format!("rustc can not be run: {error}; install Rust from https://rustup.rs")
    })?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned)
        .ok_or_else(|| "`rustc -vV` does not name the host".to_owned())
}

/// Reads the entries other than 0 of a square Matrix Market file of integers, sparse or dense.
fn read_counts(text: &str, size: usize) -> Outcome<Paths> {
    let mut lines = text.lines();
    let head = lines.next().unwrap_or_default().to_ascii_lowercase();
    let words: Vec<&str> = head.split_whitespace().collect();
    let sparse = match words.as_slice() {
        [
            "%%matrixmarket",
            "matrix",
            "coordinate",
            "integer",
            "general",
        ] => true,
        ["%%matrixmarket", "matrix", "array", "integer", "general"] => false,
        _ => return Err(format!("not a matrix of integers: {head}")),
    };
    let mut rows = lines.filter(|line| !line.starts_with('%') && !line.trim().is_empty());
    let number = |word: Option<&str>| {
        word.and_then(|word| word.parse::<usize>().ok())
            .ok_or_else(|| "a number is missing".to_owned())
    };
    let shape = rows.next().unwrap_or_default();
    let mut words = shape.split_whitespace();
    if (number(words.next())?, number(words.next())?) != (size, size) {
        return Err(format!("the shape is {shape} instead of {size} by {size}"));
    }
    let mut paths = Paths::new();
    for (index, row) in rows.enumerate() {
        let mut words = row.split_whitespace();
        // A dense file has the columns one after the other.
        let (from, to) = if sparse {
            (number(words.next())?, number(words.next())?)
        } else {
            (index % size + 1, index / size + 1)
        };
        let count = number(words.next())? as u64;
        if from == 0 || to == 0 || from > size || to > size {
            return Err(format!("an entry is outside the matrix: {row}"));
        }
        if count > 0 && paths.insert((from - 1, to - 1), count).is_some() {
            return Err(format!("an entry is there twice: {row}"));
        }
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn diamond() -> Graph {
        let package = |name: &str| json!({"id": name, "name": name, "version": "1"});
        let node = |name: &str, on: &[&str]| json!({"id": name, "dependencies": on});
        let metadata = json!({
            "packages": [package("a"), package("b"), package("c"), package("d")],
            "resolve": {"nodes": [node("a", &["b", "c"]), node("b", &["d"]), node("c", &["d"]), node("d", &[])]},
        });
        Graph::from_metadata(&metadata).unwrap()
    }

    #[test]
    fn a_diamond_has_two_paths() {
        let graph = diamond();
        assert_eq!(graph.paths(), Paths::from([((0, 3), 2)]));
        assert_eq!(graph.between(0, 3), Some("b 1"));
        assert!(
            graph
                .matrix_market()
                .ends_with("4 4 4\n1 2 1\n1 3 1\n2 4 1\n3 4 1\n")
        );
    }

    #[test]
    fn sparse_and_dense_files_are_read_alike() {
        let expected = Paths::from([((0, 1), 7), ((1, 0), 2)]);
        let sparse =
            "%%MatrixMarket matrix coordinate integer general\n% note\n2 2 2\n1 2 7\n2 1 2\n";
        let dense = "%%MatrixMarket matrix array integer general\n2 2\n0\n2\n7\n0\n";
        assert_eq!(read_counts(sparse, 2).unwrap(), expected);
        assert_eq!(read_counts(dense, 2).unwrap(), expected);
        for wrong in [
            "",
            "%%MatrixMarket matrix coordinate real general\n2 2 0\n",
            "%%MatrixMarket matrix coordinate integer general\n3 2 0\n",
            "%%MatrixMarket matrix coordinate integer general\n2 2 1\n3 1 1\n",
            "%%MatrixMarket matrix coordinate integer general\n2 2 1\n1 1\n",
            "%%MatrixMarket matrix coordinate integer general\n2 2 2\n1 1 1\n1 1 1\n",
        ] {
            assert!(read_counts(wrong, 2).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_pairs_with_the_most_paths_come_first() {
        let paths: Paths = (0..9).map(|to| ((1, to), to as u64 % 3 + 1)).collect();
        let shown = most(&paths);
        assert_eq!(shown[..3], [((1, 2), 3), ((1, 5), 3), ((1, 8), 3)]);
        assert_eq!(shown.len(), SHOWN);
    }
}
