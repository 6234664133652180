--- Calls a function without gradients and, where the model has set_step, without dropout. The step
--- that a module had is set again, also after an error.
local autograd = require "attune.autograd"

---@param model table
---@param fn function
return function(model, fn)
  local has_step = type(model) == "table" and model.set_step ~= nil
  local step = has_step and model._dropout_step or nil
  if has_step then model:set_step(nil) end
  local ok, why = pcall(autograd.no_grad, fn)
  if step then model:set_step(step) end
  if not ok then error(why, 0) end
end
