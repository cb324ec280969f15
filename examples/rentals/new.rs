//! The table of rentals.

use sqlx::{PgConnection, PgPool};

use crate::old;
use crate::shop::{Change, Rental, Result, Row};

pub(crate) async fn list(pool: PgPool, customer: i32, bug: bool) -> Result<Vec<Rental>> {
    let rows: Vec<Row> = sqlx::query_as(
        "select rental_id, extract(epoch from rental_date)::bigint, inventory_id,
                case when not $2 then extract(epoch from return_date)::bigint end
         from rental where customer_id = $1 order by rental_id",
    )
    .bind(customer)
    .bind(bug)
    .fetch_all(&pool)
    .await?;
    Ok(rows.into_iter().map(Rental::from).collect())
}

/// Answers how many rows it has changed: 0 says that the customer or the rental is not there.
pub(crate) async fn apply(connection: &mut PgConnection, customer: i32, change: &Change) -> Result<u64> {
    // The customer's row is what writers of their rentals wait for, in every phase.
    let lock = sqlx::query("select from customer where customer_id = $1 for update").bind(customer);
    lock.execute(&mut *connection).await?;
    Ok(match change {
        // Customers stay where they were; their rentals are all that moves.
        Change::Join => old::apply(connection, customer, change).await?,
        Change::Leave => {
            let rentals = sqlx::query("delete from rental where customer_id = $1").bind(customer);
            rentals.execute(&mut *connection).await?;
            old::apply(connection, customer, change).await?
        }
        Change::Rent(rental) => sqlx::query(
            "insert into rental (customer_id, rental_id, rental_date, inventory_id, staff_id, last_update)
             select customer_id, $2, to_timestamp($3), $4, 1, to_timestamp($3)
             from customer where customer_id = $1",
        )
        .bind(customer)
        .bind(rental.rental_id)
        .bind(rental.rental_date as f64)
        .bind(rental.inventory_id)
        .execute(connection)
        .await?
        .rows_affected(),
        Change::Return { rental_id, at } => sqlx::query(
            "update rental set return_date = to_timestamp($3), last_update = to_timestamp($3)
             where customer_id = $1 and rental_id = $2",
        )
        .bind(customer)
        .bind(rental_id)
        .bind(*at as f64)
        .execute(connection)
        .await?
        .rows_affected(),
    })
}
