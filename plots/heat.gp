# heat.gp - a heat map with the value in each cell.
# data: a block "x y value" for all cells, then a block "x y text" for the dark cells and one for
# the light cells. The palette is viridis.
set palette defined ( \
  0 '#440154', 0.13 '#472c7a', 0.25 '#3b518b', 0.38 '#2c718e', \
  0.5 '#21908d', 0.63 '#27ad81', 0.75 '#5cc863', 0.88 '#aadc32', \
  1 '#fde725')
unset grid
unset border
set tics scale 0
set colorbox user origin 0.9,0.2 size 0.018,0.58
plot data index 0 using 1:2:3 with image pixels notitle, \
     data index 1 using 1:2:3 with labels textcolor rgb '#FFFFFF' notitle, \
     data index 2 using 1:2:3 with labels textcolor rgb '#111111' notitle
