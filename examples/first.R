# The gradient of x^3 on a vector, with httr2: Rscript examples/first.R [URL]   (R 4.1 or newer)
library(httr2)

url <- c(commandArgs(trailingOnly = TRUE), Sys.getenv("GRADWIRE_URL", "http://127.0.0.1:8000"))[1]

answer <- request(url) |>
  req_url_path_append("grad") |>
  req_body_json(list(
    expression = "y = x**3",
    inputs = list(x = c(1, 2, 3)),
    grad_outputs = list(y = c(1, 1, 1))
  )) |>
  req_error(body = \(response) resp_body_json(response)$detail) |>
  req_perform() |>
  resp_body_json(simplifyVector = TRUE)

cat("x.grad = [", paste(answer$gradients$x$data, collapse = ","), "]\n", sep = "")
