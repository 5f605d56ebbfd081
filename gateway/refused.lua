-- A junk token costs a read of etcd, so a source whose requests are answered 401 too often is refused here until
-- the window ends. No other source is refused, and requests with good tokens are not counted.
-- In front of this text are set: LIMIT (answers 401 in a window), WINDOW_S and SOURCES (how many are remembered).
-- Calls that take access away (rule `for_safety`, in the route's metadata) are counted by themselves: junk that is
-- sent elsewhere must not keep others behind the same address from sealing and revoking.
-- Each worker of Envoy counts by itself, so with n workers the limit is n times LIMIT at most.
local window, refused, sources = 0, {}, 0

-- The first four groups of an IPv6 address (its /64), an IPv4 address as it is.
local function source_of(address)
  local v6 = address:match("^%[(.*)%]:%d+$")
  if not v6 then return address:match("^(.*):%d+$") or address end
  local mapped = v6:match("(%d+%.%d+%.%d+%.%d+)$")
  if mapped then return mapped end
  local head, tail = v6:match("^(.-)::(.*)$")
  local groups, after = {}, 0
  for group in (head or v6):gmatch("%x+") do groups[#groups + 1] = group end
  for _ in (tail or ""):gmatch("%x+") do after = after + 1 end
  local zeros = head and 8 - #groups - after or 0
  for _ = 1, zeros do groups[#groups + 1] = "0" end
  for group in (tail or ""):gmatch("%x+") do groups[#groups + 1] = group end
  return table.concat(groups, ":", 1, 4)
end

local function counted_as(handle)
  local source = source_of(handle:streamInfo():downstreamRemoteAddress())
  return handle:metadata():get("for_safety") and source .. " for safety" or source
end

local function forget_what_is_over()
  local now = math.floor(os.time() / WINDOW_S)
  if now ~= window then window, refused, sources = now, {}, 0 end
end

function envoy_on_request(handle)
  forget_what_is_over()
  if sources == 0 then return end
  local source = counted_as(handle)
  if (refused[source] or 0) >= LIMIT then handle:respond({ [":status"] = "429" }, "") end
end

function envoy_on_response(handle)
  -- 16 is UNAUTHENTICATED: behind the transcoder a REST call is a gRPC call too. An error is headers alone.
  if handle:headers():get("grpc-status") ~= "16" then return end
  forget_what_is_over()
  local source = counted_as(handle)
  if not refused[source] then
    if sources >= SOURCES then return end
    sources = sources + 1
  end
  refused[source] = (refused[source] or 0) + 1
end
