-- HEAD for monitors (health, ready, seal status): sent on as GET, answered without the body. Envoy would write
-- the body after the headers, where HTTP/1.1 expects the next answer. Only for the routes that enable it.
function envoy_on_request(handle)
  handle:headers():replace(":method", "GET")
end

function envoy_on_response(handle)
  handle:body(true):setBytes("")
end
