# heat.gp - a heat map with the value in each cell.
# data: from block `first` on, a block of boxes "x y x1 x2 y1 y2 value", a block of boxes that have no colour, then a block
# "x y text" for the dark cells and one for the light cells. The palette is viridis.
# has[i]: 1 when block i has rows; gnuplot crashes on labels of which none can be drawn. bar: 1 to
# draw the colour bar. cellfont: of the values.
set palette defined ( \
  0 '#440154', 0.13 '#472c7a', 0.25 '#3b518b', 0.38 '#2c718e', \
  0.5 '#21908d', 0.63 '#27ad81', 0.75 '#5cc863', 0.88 '#aadc32', \
  1 '#fde725')
unset grid
unset border
set style fill solid 1.0 noborder
if (!bar) unset colorbox
plot for [i=1:has[1]] data index first using 1:2:3:4:5:6:7 with boxxyerror \
       fillcolor palette notitle, \
     for [i=1:has[2]] data index first+1 using 1:2:3:4:5:6 with boxxyerror \
       fillcolor rgb grid notitle, \
     for [i=1:has[3]] data index first+2 using 1:2:3 with labels font cellfont \
       textcolor rgb '#FFFFFF' notitle, \
     for [i=1:has[4]] data index first+3 using 1:2:3 with labels font cellfont \
       textcolor rgb '#111111' notitle
