//! Members that lie, about each other and about jobs, and members that come back.

mod guarded;
mod impostors;
mod narrow;
mod node;
mod older;
mod rejoin;
mod usurpers;
