-- HEAD for what monitors ask (health, ready, seal status): asked as GET, answered without the body. Envoy would
-- write the body behind the headers, where HTTP/1.1 expects the next answer. Only for the routes that say so.
function envoy_on_request(handle)
  handle:headers():replace(":method", "GET")
end

function envoy_on_response(handle)
  handle:body(true):setBytes("")
end
