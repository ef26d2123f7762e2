//! The single flight.

use shuttle::sync;

#[path = "../../../server/src/compute/flights.rs"]
mod flights;

pub use flights::{Answer, FlightError, Flights, Work};
